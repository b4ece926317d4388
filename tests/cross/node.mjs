// Runs a kernel on the arrays that come on standard input, one after the other, and writes them back to standard output:
// node node.mjs FOLDER CALL, where CALL is JSON: {"arrays": [[name, type, bytes]], "scalars": {…}, "sizes": {…}}.
import { readFileSync, writeSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, text] = process.argv.slice(2);
const call = JSON.parse(text);
const { load } = await import(pathToFileURL(`${folder}/loader.mjs`));
const input = readFileSync(0);
const values = { ...call.scalars };
let at = input.byteOffset;
for (const [name, type, bytes] of call.arrays) {
  values[name] = new globalThis[type](input.buffer.slice(at, at + bytes));
  at += bytes;
}
(await load(folder)).run(values, call.sizes);
for (const [name] of call.arrays) {
  const { buffer } = values[name];
  for (let written = 0; written < buffer.byteLength; ) written += writeSync(1, new Uint8Array(buffer, written));
}
