/**
 * An application with Hono: routes, JSON in and out, a stream, errors. It runs behind the tunnel with `serve(app)`,
 * and as it is under `deno serve -N examples/templates/fetch_app_advanced/app.ts`. Outside of this checkout: `npm:hono`.
 *
 * Permissions: `-N` under `deno serve`; none of its own.
 *
 * @module
 */

import { Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { streamText } from "hono/streaming";

interface Note {
  id: number;
  text: string;
}

/** Makes an application with no notes yet. */
export function makeApp(): Hono {
  const notes = new Map<number, Note>();
  let lastId = 0;

  const app = new Hono();

  app.get(
    "/",
    (c) => c.text("routes: GET /notes, POST /notes, GET /notes/:id, DELETE /notes/:id, GET /count\n"),
  );

  app.get("/notes", (c) => c.json([...notes.values()]));

  app.post("/notes", async (c) => {
    const body: unknown = await c.req.json().catch(() => {
      throw new HTTPException(400, { message: "the body is not JSON" });
    });
    const text = typeof body === "object" && body !== null && "text" in body ? body.text : undefined;
    if (typeof text !== "string" || text === "") {
      throw new HTTPException(422, { message: 'expected {"text": "..."}' });
    }
    const note: Note = { id: ++lastId, text };
    notes.set(note.id, note);
    return c.json(note, 201, { location: `/notes/${note.id}` });
  });

  app.get("/notes/:id{[0-9]+}", (c) => {
    const note = notes.get(Number(c.req.param("id")));
    return note === undefined ? c.notFound() : c.json(note);
  });

  app.delete(
    "/notes/:id{[0-9]+}",
    (c) => notes.delete(Number(c.req.param("id"))) ? c.body(null, 204) : c.notFound(),
  );

  // Each line leaves when it is written: the tunnel and the gateway hold nothing back.
  app.get("/count", (c) =>
    streamText(c, async (stream) => {
      for (let i = 1; i <= 5 && !stream.aborted; i++) {
        await stream.writeln(String(i));
        await stream.sleep(200);
      }
    }));

  app.notFound((c) => c.json({ error: "not found" }, 404));
  app.onError((error, c) => {
    if (error instanceof HTTPException) return c.json({ error: error.message }, error.status);
    console.error(`${c.req.method} ${c.req.path}: ${error.message}`);
    return c.json({ error: "internal error" }, 500);
  });
  return app;
}

/** The form that `serve()`, `deno serve` and Workers take. */
const app: Hono = makeApp();
export default app;
