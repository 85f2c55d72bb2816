/** What a WebSocket may take to open once the answer to its handshake was sent, in ms. */
export const OPEN_MS = 1000;

/**
 * Has a WebSocket end that does not open. Of one whose client has left before the answer was sent Deno tells nothing: it
 * is about to open for ever, with whatever waits for its end.
 */
export function closeUnlessOpened(
  socket: EventTarget & { readonly readyState: number; close(): void },
  answered: Promise<unknown>,
  milliseconds: number = OPEN_MS,
): void {
  const look = () => {
    if (socket.readyState !== WebSocket.CONNECTING) return;
    const end = () => {
      socket.addEventListener("open", () => socket.close(), { once: true }); // nobody holds it any more
      socket.dispatchEvent(new CloseEvent("close", { code: 1006 }));
    };
    // Another turn: a process that was busy for so long learns only then that it has opened.
    let timer = setTimeout(() => timer = setTimeout(end, 0), milliseconds);
    for (const type of ["open", "close"]) {
      socket.addEventListener(type, () => clearTimeout(timer), { once: true });
    }
  };
  answered.then(look, look);
}
