// node node.mjs FOLDER: runs the kernel in the folder as its call.json and input.bin say, and writes output.bin.
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { run } from "./call.mjs";

const [folder] = process.argv.slice(2);
const { load } = await import(pathToFileURL(`${folder}/loader.mjs`));
const call = JSON.parse(readFileSync(`${folder}/call.json`));
writeFileSync(`${folder}/output.bin`, run(await load(folder), call, readFileSync(`${folder}/input.bin`)));
