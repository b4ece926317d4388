/**
 * Runs a kernel that Mosaic Compile made for WebAssembly, in Node and in browsers.
 *
 *     import { load } from "./loader.mjs";
 *     const add = await load(new URL("./add/", import.meta.url));  // what mosaic-compile … --target wasm32 -o add wrote
 *     add.run({ x, y, sum });                                      // Float32Arrays; sum is written
 *
 * Arrays are typed arrays, row-major and without gaps. Elements of types that JavaScript lacks are passed as their
 * bits: f16 and bf16 in a Uint16Array, f8e4m3 and f8e5m2 in a Uint8Array, i4 in an Int8Array with two elements a byte, the
 * first in its low half; bool as 0 and 1 in a Uint8Array. Scalars are numbers (i64 also a BigInt), bool true or false.
 */

const ARRAYS = {
  f64: Float64Array, f32: Float32Array, f16: Uint16Array, bf16: Uint16Array, f8e4m3: Uint8Array, f8e5m2: Uint8Array,
  i64: BigInt64Array, i32: Int32Array, i16: Int16Array, i8: Int8Array, i4: Int8Array, u32: Uint32Array, u8: Uint8Array,
  bool: Uint8Array,
};
// The least and the largest number of each type of integers.
const RANGES = {
  i64: [-(2n ** 63n), 2n ** 63n - 1n], i32: [-(2n ** 31n), 2n ** 31n - 1n], i16: [-32768n, 32767n], i8: [-128n, 127n],
  i4: [-8n, 7n], u32: [0n, 2n ** 32n - 1n], u8: [0n, 255n],
};
// Of each narrow floating-point format: bits, bits of mantissa, the exponent's bias, the largest finite code, what is beyond
// it (infinity, or NaN in a format without infinity), and NaN.
const NARROW = {
  f16: [16, 10, 15, 0x7bff, 0x7c00, 0x7e00], bf16: [16, 7, 127, 0x7f7f, 0x7f80, 0x7fc0],
  f8e4m3: [8, 3, 7, 0x7e, 0x7f, 0x7f], f8e5m2: [8, 2, 15, 0x7b, 0x7c, 0x7e],
};
const LARGEST = 2 ** 31; // sizes and numbers of programs are below
const ALIGNMENT = 64; // of arrays and of scratch memory

/** A mistake in a call: the message says what is wrong and what would be right. */
export class KernelError extends Error {
  name = "KernelError";
}

/**
 * The kernel in a folder that `mosaic-compile --target wasm32 -o DIR` wrote.
 * @param {string | URL} folder Its address, in Node a path too.
 * @returns {Promise<Kernel>}
 * @throws {KernelError} where the folder holds no WebAssembly module.
 */
export async function load(folder) {
  const manifest = JSON.parse(new TextDecoder().decode(await read(folder, "manifest.json")));
  if (!manifest.files.library?.endsWith(".wasm"))
    throw new KernelError(
      `the folder holds no WebAssembly module: ${manifest.library?.missing ?? `it is for ${manifest.target}`}; ` +
        "compile with --target wasm32 -o DIR where wasm-ld is installed",
    );
  return instantiate(manifest, await read(folder, manifest.files.library));
}

/**
 * The kernel from its manifest and its module, for programs that bring files along in a way of their own.
 * @param {object} manifest What manifest.json holds.
 * @param {BufferSource | WebAssembly.Module} wasm
 * @returns {Promise<Kernel>}
 */
export async function instantiate(manifest, wasm) {
  const module = wasm instanceof WebAssembly.Module ? wasm : await WebAssembly.compile(wasm);
  const open = WebAssembly.Module.imports(module).map((i) => i.name);
  if (open.length) throw new KernelError(`the module calls ${open.join(", ")}, which WebAssembly lacks`);
  return new Kernel(manifest, await WebAssembly.instantiate(module));
}

/** A loaded kernel. `exports` are the module's own functions and memory, as docs/c-abi.md describes them. */
export class Kernel {
  constructor(manifest, instance) {
    this.manifest = manifest;
    this.exports = instance.exports;
    this.scratchBytes = Number(this.#function("scratch_bytes")());
  }

  /**
   * Runs the kernel on all of its grid.
   * @param {Object<string, TypedArray | number | bigint | boolean>} values The kernel's arrays and scalars, by name. Arrays
   *     that the kernel writes are changed. A scalar that has a default may be left out.
   * @param {Object<string, number>} sizes The dimensions that no array of one dimension has.
   * @throws {KernelError} where an argument is missing, or of a wrong type or size.
   */
  run(values, sizes = {}) {
    this.#checkNames(values, sizes);
    const arrays = this.manifest.arrays.map((array) => ({ ...array, data: typedArray(array, values[array.name]) }));
    const dims = dimensions(arrays, sizes);
    for (const array of arrays) checkShape(array, dims);
    checkApart(arrays);
    const { grid, scratch } = this.#reserve(arrays);
    const passed = this.manifest.parameters.map((p) => argument(p, values, arrays, { ...dims, num_sms: 1 }));
    const total = this.#programs(passed.filter((_, i) => this.manifest.parameters[i].kind === "dim"), grid);
    if (total === 0n) return;
    for (const array of arrays) this.#bytes(array).set(bytes(array.data));
    this.#function("run")(...passed, 0n, total, scratch);
    for (const array of arrays) if (array.access !== "in") bytes(array.data).set(this.#bytes(array));
  }

  #function(suffix) {
    return this.exports[`${this.manifest.kernel}_${suffix}`];
  }

  #bytes({ address, data }) {
    return new Uint8Array(this.exports.memory.buffer, address, data.byteLength);
  }

  #checkNames(values, sizes) {
    const scalars = this.manifest.parameters.filter((p) => p.kind === "scalar");
    const names = [...this.manifest.arrays, ...scalars].map((p) => p.name);
    for (const name in values)
      if (!names.includes(name))
        throw new KernelError(`the kernel has no argument '${name}'; its arguments are: ${names.join(", ")}`);
    const dims = new Set(this.manifest.arrays.flatMap((a) => a.dims.filter((d) => typeof d === "string")));
    for (const name in sizes)
      if (!dims.has(name))
        throw new KernelError(`the kernel has no dimension '${name}'; its dimensions are: ${[...dims].join(", ")}`);
  }

  /** Gives the arrays, the grid and the scratch memory addresses, behind what the module keeps there itself. */
  #reserve(arrays) {
    const memory = this.exports.memory;
    let end = this.exports.__heap_base.value;
    const take = (count) => {
      const address = Math.ceil(end / ALIGNMENT) * ALIGNMENT;
      end = address + count;
      return address;
    };
    const [grid, scratch] = [take(24), take(this.scratchBytes)];
    for (const array of arrays) array.address = take(array.data.byteLength);
    const missing = Math.ceil((end - memory.buffer.byteLength) / 65536);
    if (missing > 0) {
      try {
        memory.grow(missing);
      } catch {
        throw new KernelError(`the arrays need ${end} bytes of WebAssembly's memory, more than it can have`);
      }
    }
    return { grid, scratch };
  }

  #programs(counts, address) {
    this.#function("grid")(...counts, address);
    const grid = [...new BigInt64Array(this.exports.memory.buffer, address, 3)];
    if (grid.some((n) => n >= LARGEST)) throw new KernelError(`the grid (${grid.join(", ")}) is too large: use larger tiles`);
    return grid.some((n) => n <= 0n) ? 0n : grid[0] * grid[1] * grid[2];
  }
}

/** What NAME_run takes for one of its parameters. */
function argument(parameter, values, arrays, dims) {
  const array = arrays.find((a) => a.name === parameter.array);
  switch (parameter.kind) {
    case "pointer":
      return array.address;
    case "stride":
      return BigInt(product(array.shape.slice(parameter.axis + 1)));
    case "dim":
      return BigInt(dims[parameter.name]);
    default:
      return scalar(parameter, values[parameter.name] ?? parameter.default);
  }
}

async function read(folder, name) {
  const base = String(folder).replace(/\/?$/, "/");
  const inNode = typeof process !== "undefined" && process.versions?.node;
  if (inNode && !/^(https?|data|blob):/.test(base)) {
    const { readFile } = await import("node:fs/promises");
    return readFile(base.startsWith("file:") ? new URL(name, base) : base + name);
  }
  const response = await fetch(base + name);
  if (!response.ok) throw new KernelError(`${base}${name} cannot be read: ${response.status} ${response.statusText}`);
  return response.arrayBuffer();
}

function typedArray({ name, dtype }, data) {
  const wanted = ARRAYS[dtype];
  if (data === undefined) throw new KernelError(`the array '${name}' is missing: pass a ${wanted.name}`);
  const isF16 = dtype === "f16" && globalThis.Float16Array && data instanceof Float16Array;
  if (!(data instanceof wanted || isF16)) {
    const kind = data?.constructor?.name ?? String(data);
    throw new KernelError(`'${name}' is ${kind}, but the kernel takes ${dtype}: pass a ${wanted.name}`);
  }
  return data;
}

/** The size of every named dimension: as given, as compiled, or as long as an array of that one dimension is. */
function dimensions(arrays, sizes) {
  const dims = {};
  const set = (name, size, from) => {
    if (!Number.isInteger(size) || size < 0 || size >= LARGEST)
      throw new KernelError(`the dimension ${name} cannot be ${size}: it is a whole number below 2147483648`);
    if (dims[name] !== undefined && dims[name] !== size)
      throw new KernelError(`the dimension ${name} is ${size} ${from}, but ${dims[name]} before`);
    dims[name] = size;
  };
  const named = arrays.flatMap((array) =>
    array.dims.map((dim, axis) => ({ dim, array, axis })).filter(({ dim }) => typeof dim === "string"),
  );
  for (const { dim, array, axis } of named)
    if (array.sizes[axis] !== null) set(dim, array.sizes[axis], "in the compiled kernel");
  for (const name in sizes) set(name, sizes[name], "as given");
  for (const { dim, array } of named)
    if (array.dims.length === 1 && array.dtype !== "i4") set(dim, array.data.length, `by the length of '${array.name}'`);
  for (const { dim } of named)
    if (dims[dim] === undefined) throw new KernelError(`the size of dimension ${dim} is missing: run({…}, { ${dim}: 16 })`);
  return dims;
}

/** Adds an array's shape, and checks it with what the kernel was compiled for. */
function checkShape(array, dims) {
  const { name, data, dtype, sizes } = array;
  array.shape = array.dims.map((dim, axis) => sizes[axis] ?? dims[dim]);
  const shown = `${dtype}[${array.shape.join(", ")}]`;
  let length = product(array.shape);
  if (dtype === "i4" && array.shape.length) {
    if (array.shape.at(-1) % 2)
      throw new KernelError(`'${name}' is ${shown}: rows of i4 have an even number of elements, two in a byte`);
    length /= 2;
  }
  if (data.length !== length)
    throw new KernelError(`'${name}' has ${data.length} elements, but ${shown} is a ${data.constructor.name} of ${length}`);
  array.shape.forEach((size, axis) => {
    if (size % array.dim_multiples[axis])
      throw new KernelError(
        `dimension ${axis} of '${name}' is ${size}, but the kernel was compiled for multiples of ` +
          `${array.dim_multiples[axis]}: compile with --shape ${array.dims[axis]}=%1`,
      );
  });
  array.shape.forEach((size, axis) => {
    const stride = product(array.shape.slice(axis + 1));
    const [wanted, multiple] = [array.strides[axis], array.stride_multiples[axis]];
    if (size > 1 && ((wanted !== null && stride !== wanted) || stride % multiple))
      throw new KernelError(
        `dimension ${axis} of '${name}' has stride ${stride}, but the kernel was compiled for ` +
          `${wanted ?? `multiples of ${multiple}`}: compile it for row-major arrays`,
      );
  });
}

/** What a kernel writes may share no memory with its other arrays. */
function checkApart(arrays) {
  for (const written of arrays.filter((a) => a.access !== "in"))
    for (const other of arrays)
      if (other !== written && overlap(written.data, other.data))
        throw new KernelError(`'${written.name}' is written by the kernel and shares memory with '${other.name}'`);
}

function overlap(a, b) {
  const [first, second] = a.byteOffset <= b.byteOffset ? [a, b] : [b, a];
  return first.buffer === second.buffer && second.byteLength > 0 && first.byteOffset + first.byteLength > second.byteOffset;
}

function scalar({ name, dtype }, value) {
  const number = dtype in NARROW || dtype === "f32" || dtype === "f64";
  const [low, high] = RANGES[dtype] ?? [];
  const wanted = number ? "a number" : dtype === "bool" ? "true or false" : `a whole number from ${low} to ${high}`;
  if (value === undefined || value === null) throw new KernelError(`the scalar '${name}' is missing: pass ${wanted}`);
  if (number && typeof value === "number") return dtype in NARROW ? encode(value, ...NARROW[dtype]) : value;
  if (dtype === "bool" && typeof value === "boolean") return Number(value);
  if (low !== undefined && (typeof value === "bigint" || Number.isInteger(value))) {
    const whole = BigInt(value);
    if (whole >= low && whole <= high) return dtype === "i64" ? whole : Number(whole);
  }
  throw new KernelError(`the scalar '${name}' of type ${dtype} cannot be ${value}: pass ${wanted}`);
}

/** The bits of a number in a narrow format, rounded to nearest, ties to even. */
function encode(value, width, mantissa, bias, largest, beyond, nan) {
  if (Number.isNaN(value)) return nan;
  const exponentOf = Number((new BigUint64Array(Float64Array.of(value).buffer)[0] >> 52n) & 0x7ffn) - 1023;
  const exponent = Math.max(exponentOf, 1 - bias);
  const exact = Math.abs(value) * 2 ** (mantissa - exponent);
  const below = Math.floor(exact);
  const up = exact - below > 0.5 || (exact - below === 0.5 && below % 2 === 1);
  const code = below + Number(up) + (exponent + bias - 1) * 2 ** mantissa;
  const sign = value < 0 || Object.is(value, -0) ? 2 ** (width - 1) : 0;
  return sign + (Math.abs(value) === Infinity || code > largest ? beyond : code);
}

function bytes(data) {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

function product(sizes) {
  return sizes.reduce((a, b) => a * b, 1);
}
