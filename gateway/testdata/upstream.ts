// An upstream as a process of its own: `upstream.ts PORT PRIVATE_HEX`. Prints `ready PORT PUBLIC_HEX`.
import { KeyPair } from "../../noise/mod.ts";
import { serve } from "../../transport/mod.ts";

const [port = "0", key = ""] = Deno.args;
const keyPair = key === "" ? KeyPair.generate() : KeyPair.fromHex(key);
const chunk = new Uint8Array(65_536).fill(0x61);

const server = serve(async (request) => {
  const url = new URL(request.url);
  switch (url.pathname) {
    case "/download": {
      let left = Number(url.searchParams.get("bytes"));
      const pause = Number(url.searchParams.get("pause") ?? 0);
      return new Response(
        new ReadableStream({
          pull: async (controller) => {
            if (left <= 0) return controller.close();
            if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause));
            const n = Math.min(left, chunk.length);
            left -= n;
            controller.enqueue(chunk.subarray(0, n));
          },
        }, { highWaterMark: 0 }),
        { headers: { "content-length": url.searchParams.get("bytes")! } },
      );
    }
    case "/upload": {
      let bytes = 0;
      for await (const part of request.body ?? []) bytes += part.length;
      return Response.json({ bytes });
    }
    default: {
      const body = await request.text();
      return new Response(`${url.pathname} ${body}`);
    }
  }
}, { port: Number(port), keyPair });
console.log(`ready ${server.addr.port} ${keyPair.publicKeyHex}`);
await server.finished;
