/**
 * The baseline for commands and files: a server in the bare Worker's sandbox. `POST` runs its body with bash and sends the
 * output. `PUT` writes its body to the file at the URL's path, and `GET` sends that file. It is in sandboxd's place, because the engine
 * passes requests on to no other server of a sandbox except the control server. `tests/setup/take-place.cjs` comes before this text.
 */
/* global takePlace, sendBeats */
const { spawn } = require("node:child_process");
const { readFile, writeFile } = require("node:fs/promises");
const { createServer } = require("node:http");

async function bodyOf(stream) {
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  return Buffer.concat(pieces);
}

async function resultOf(request) {
  if (request.method === "GET") return readFile(request.url);
  const body = await bodyOf(request);
  if (request.method === "PUT") return writeFile(request.url, body);
  const bash = spawn("bash", ["-c", body.toString()], { stdio: ["ignore", "pipe", "ignore"] });
  return bodyOf(bash.stdout);
}

takePlace(
  createServer((request, response) => {
    resultOf(request).then(
      (body) => response.end(body),
      (error) => response.writeHead(500).end(String(error)),
    );
  }),
);
sendBeats();
