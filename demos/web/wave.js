// Draws a tensor as waves: fetched where a model reads no images.

const SIDE = 240; // pixels

/** Each column from its lowest to its highest value, axes before the last one below each other. @param {HTMLCanvasElement} canvas @param {Float32Array} values @param {number} length of the last axis */
export function showWave(canvas, values, length) {
  const rows = Math.min(values.length / length, 12);
  if (canvas.width !== SIDE || canvas.height !== SIDE) Object.assign(canvas, { width: SIDE, height: SIDE });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.clearRect(0, 0, SIDE, SIDE);
  context.fillStyle = getComputedStyle(canvas).color;
  for (let row = 0; row < rows; row++) {
    const samples = values.subarray(row * length, (row + 1) * length);
    const half = SIDE / rows / 2;
    const most = samples.reduce((least, value) => Math.max(least, Math.abs(value)), 1e-3);
    for (let column = 0; column < SIDE; column++) {
      const at = (/** @type {number} */ edge) => Math.min(Math.floor((edge * length) / SIDE), length - 1);
      const part = samples.subarray(at(column), at(column + 1) + 1); // the next one too: a line, not points
      const [low, high] = [Math.min(...part), Math.max(...part)];
      const top = (2 * row + 1) * half - (high / most) * (half - 2);
      context.fillRect(column, top, 1, Math.max(((high - low) / most) * (half - 2), 1));
    }
  }
}
