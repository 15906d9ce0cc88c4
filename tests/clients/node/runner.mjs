// A small test runner, as runner.py: named functions, and a last line "N passed, N failed".
import assert from "node:assert/strict";

export const url = process.argv[2];
export const key = process.argv[3] || "none";
const tests = [];

export function test(name, body) {
  tests.push([name, body]);
}

export function equal(got, expected, what = "value") {
  assert.deepEqual(got, expected, `${what}: got ${JSON.stringify(got)}, expected ${JSON.stringify(expected)}`);
}

export const check = assert.ok;

export async function collect(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}

export async function run(suite) {
  let passed = 0;
  let failed = 0;
  for (const [name, body] of tests) {
    const start = Date.now();
    let problem;
    try {
      await body();
    } catch (error) {
      problem = error;
    }
    console.log(`${problem ? "FAIL" : "ok  "} ${suite}.${name} (${((Date.now() - start) / 1000).toFixed(2)} s)`);
    if (problem) console.log(`     ${String(problem.stack ?? problem).replaceAll("\n", "\n     ")}`);
    problem ? failed++ : passed++;
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed ? 1 : 0;
}
