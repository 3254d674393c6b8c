// Node's http module. The body comes on stdin and goes to stdout; what else was seen goes to stderr as JSON.
import http from "node:http";
import { once } from "node:events";

const [url, method, leaveAfter, timeout, body] = process.argv.slice(2);
const seen = { status: 0, headers: {}, trailers: {}, error: "" };
const write = (piece) => new Promise((done) => process.stdout.write(piece, done));
let left = false;

try {
  const request = http.request(url, { method, timeout: Number(timeout) });
  request.on("timeout", () => request.destroy(new Error("timeout")));
  if (body) process.stdin.pipe(request);
  else request.end();
  const [response] = await once(request, "response");
  request.on("error", () => {}); // from here on the response tells
  seen.status = response.statusCode;
  seen.headers = response.headers;
  let pieces = 0;
  for await (const piece of response) {
    await write(piece);
    if (++pieces === Number(leaveAfter)) {
      left = true;
      request.destroy();
    }
  }
  seen.trailers = response.trailers;
} catch (error) {
  if (!left) seen.error = `${error.name}: ${error.message}`;
}
process.stderr.write(JSON.stringify(seen), () => process.exit());
