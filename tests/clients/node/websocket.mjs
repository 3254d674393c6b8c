// A conversation over a WebSocket, Node's own or the one of the package `ws`: the orders come on stdin as JSON, what was seen goes
// to stdout as JSON. Messages are ["text", TEXT] or ["binary", BASE64].
import { writeSync } from "node:fs";
import { createRequire } from "node:module";
import { text } from "node:stream/consumers";

const [kind, modules] = process.argv.slice(2);
const orders = JSON.parse(await text(process.stdin));
const seen = { protocol: "", said: [], code: 0, reason: "", refused: 0 };
const WebSocket = kind === "ws" ? createRequire(modules)("ws") : globalThis.WebSocket;

const socket = new WebSocket(orders.url, orders.subprotocols);
socket.binaryType = "arraybuffer";
socket.onopen = () => {
  seen.protocol = socket.protocol;
  for (const [type, data] of orders.says) socket.send(type === "text" ? data : Buffer.from(data, "base64"));
  end();
};
socket.onmessage = ({ data }) => {
  seen.said.push(typeof data === "string" ? ["text", data] : ["binary", Buffer.from(data).toString("base64")]);
  end();
};
socket.onerror = () => {}; // its close follows, but not after a refusal in Node 20
socket.onclose = ({ code, reason }) => Object.assign(seen, { code, reason });
process.on("exit", () => writeSync(1, JSON.stringify(seen)));
if (kind === "ws") {
  socket.on("unexpected-response", (_, response) => {
    seen.refused = response.statusCode;
    response.resume();
    socket.terminate();
  });
}

function end() {
  if (seen.said.length < orders.replies) return;
  if (orders.vanishes) process.exit();
  if (orders.code) socket.close(orders.code, orders.reason);
}
