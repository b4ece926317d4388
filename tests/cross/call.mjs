/** Calls a kernel: call is {"arrays": [[name, type, bytes]], "scalars": {…}, "sizes": {…}}, input holds the arrays' bytes one
 *  behind the other. Returns the arrays' bytes after the call in the same way. */
export function run(kernel, call, input) {
  const values = { ...call.scalars };
  let at = input.byteOffset;
  for (const [name, type, bytes] of call.arrays) {
    values[name] = new globalThis[type](input.buffer.slice(at, at + bytes));
    at += bytes;
  }
  kernel.run(values, call.sizes);
  const result = new Uint8Array(input.byteLength);
  at = 0;
  for (const [name, , bytes] of call.arrays) {
    result.set(new Uint8Array(values[name].buffer), at);
    at += bytes;
  }
  return result;
}
