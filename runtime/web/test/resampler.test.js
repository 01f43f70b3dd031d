// What the page's microphone hears, at the rate of a bundle.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Resampler } from "../../../demos/web/resampler.js";

/** @param {number} hertz @param {number} rateHz @param {number} count */
const tone = (hertz, rateHz, count) =>
  Float32Array.from({ length: count }, (_, place) => Math.sin((2 * Math.PI * hertz * place) / rateHz));

/** @param {number} fromHz @param {number} toHz @param {Float32Array} samples @param {number} piece */
function resampled(fromHz, toHz, samples, piece) {
  const resampler = new Resampler(fromHz, toHz);
  const result = [];
  for (let place = 0; place < samples.length; place += piece)
    result.push(...resampler.push(samples.subarray(place, place + piece)));
  return Float32Array.from(result);
}

/** Root of the mean square, without the first and last hundredth of a second. @param {Float32Array} values @param {number} rateHz */
function strength(values, rateHz) {
  const inner = values.subarray(rateHz / 100, values.length - rateHz / 100);
  return Math.sqrt(inner.reduce((sum, value) => sum + value ** 2, 0) / inner.length);
}

for (const [fromHz, toHz] of [
  [48_000, 8000],
  [48_000, 16_000],
  [44_100, 16_000],
  [44_100, 8000],
  [8000, 16_000],
  [16_000, 16_000],
]) {
  test(`a tone is the same tone after ${fromHz} -> ${toHz} samples a second`, () => {
    const found = resampled(fromHz, toHz, tone(700, fromHz, fromHz), 1024);
    assert.ok(Math.abs(found.length - toHz) <= toHz / 100, `${found.length} samples`);
    const expected = tone(700, toHz, found.length);
    const error = found.map((value, place) => value - expected[place]);
    assert.ok(strength(error, toHz) < 2e-3 * strength(expected, toHz));
    // However it comes.
    const other = resampled(fromHz, toHz, tone(700, fromHz, fromHz / 4), 37);
    for (const [place, value] of other.entries()) assert.ok(Math.abs(value - found[place]) < 1e-6);
  });
}

test("what the lower rate cannot have is not heard as something else", () => {
  for (const [fromHz, toHz] of [
    [48_000, 8000],
    [44_100, 16_000],
  ]) {
    for (const hertz of [0.65 * toHz, 0.8 * toHz, 1.2 * toHz])
      assert.ok(strength(resampled(fromHz, toHz, tone(hertz, fromHz, fromHz / 2), 1024), toHz) < 2e-3);
  }
});
