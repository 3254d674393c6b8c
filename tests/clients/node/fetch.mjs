// Node's fetch. The body comes on stdin and goes to stdout; what else was seen goes to stderr as JSON.
import { Readable } from "node:stream";

const [url, method, leaveAfter, timeout, body] = process.argv.slice(2);
const seen = { status: 0, headers: {}, trailers: {}, error: "" };
const stop = new AbortController();
const write = (piece) => new Promise((done) => process.stdout.write(piece, done));

try {
  const response = await fetch(url, {
    method,
    signal: AbortSignal.any([stop.signal, AbortSignal.timeout(Number(timeout))]),
    ...(body && { body: Readable.toWeb(process.stdin), duplex: "half" }),
  });
  seen.status = response.status;
  seen.headers = Object.fromEntries(response.headers);
  let pieces = 0;
  for await (const piece of response.body ?? []) {
    await write(piece);
    if (++pieces === Number(leaveAfter)) stop.abort();
  }
} catch (error) {
  if (!stop.signal.aborted) seen.error = `${error.name}: ${error.message}`;
}
process.stderr.write(JSON.stringify(seen), () => process.exit());
