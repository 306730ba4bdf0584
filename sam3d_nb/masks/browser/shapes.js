// Masks in the browser: run lengths to shapes, shapes to pictures with color, pattern and outline.

/** Cut run lengths (first run outside) out of a picture: {x, y, w, h, bits} or null if empty. */
function decode(view, width) {
  const runs = new Uint32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
  let [left, top, right, bottom] = [Infinity, Infinity, -1, -1];
  let position = 0;
  for (let i = 0; i < runs.length; position += runs[i++]) {
    if (i % 2 === 0 || runs[i] === 0) continue;
    const last = position + runs[i] - 1;
    const [row, lastRow] = [Math.floor(position / width), Math.floor(last / width)];
    top = Math.min(top, row);
    bottom = Math.max(bottom, lastRow);
    left = Math.min(left, row === lastRow ? position % width : 0);
    right = Math.max(right, row === lastRow ? last % width : width - 1);
  }
  if (right < 0) return null;
  const shape = { x: left, y: top, w: right - left + 1, h: bottom - top + 1 };
  shape.bits = new Uint8Array(shape.w * shape.h);
  position = 0;
  for (let i = 0; i < runs.length; position += runs[i++]) {
    if (i % 2 === 0) continue;
    for (let start = position, end = position + runs[i]; start < end; ) {
      const row = Math.floor(start / width);
      const stop = Math.min(end, (row + 1) * width);
      const at = (row - top) * shape.w + (start - row * width) - left;
      shape.bits.fill(1, at, at + stop - start);
      start = stop;
    }
  }
  return shape;
}

const inside = (s, x, y) =>
  s !== null && x >= s.x && y >= s.y && x < s.x + s.w && y < s.y + s.h &&
  s.bits[(y - s.y) * s.w + x - s.x] === 1;

/** Six patterns, so that neighbors differ without color too: is (x, y) on a line of pattern n? */
function pattern(n, size, period) {
  const line = (value, thick = 2) => value % period < thick * size;
  const far = period * 1000; // keeps what is taken the remainder of above 0
  return [
    (x, y) => line(x + y),
    (x, y) => line(x, 4) && line(y, 4),
    (x, y) => line(y),
    (x, y) => line(x - y + far),
    (x, y) => line(x),
    (x, y) => line(x + y) || line(x - y + far),
  ][n % 6];
}

const rgba = (r, g, b, a) => ((a << 24) | (b << 16) | (g << 8) | r) >>> 0; // little-endian

/** Draw a shape as two pictures: its filled area, and a line of its color within a dark one. */
function overlay(shape, color, number, size, period = 12 * size) {
  const [w, h, stride] = [shape.w + 2 * size, shape.h + 2 * size, shape.w + 4 * size];
  const bits = new Uint8Array(stride * (shape.h + 4 * size)); // with room for all neighbors
  for (let y = 0; y < shape.h; y++) {
    bits.set(shape.bits.subarray(y * shape.w, (y + 1) * shape.w), (y + 2 * size) * stride + 2 * size);
  }
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(color.slice(i, i + 2), 16));
  const dark = number === null ? () => false : pattern(number, size, period);
  const [plain, shaded] = [rgba(r, g, b, 255), rgba(r * 0.35, g * 0.35, b * 0.35, 255)];
  const around = rgba(24, 24, 24, 220);
  const [fill, line] = [new ImageData(w, h), new ImageData(w, h)];
  const [fills, lines] = [fill, line].map((data) => new Uint32Array(data.data.buffer));
  const [dx, dy] = [size, size * stride];
  for (let y = 0, at = 0; y < h; y++) {
    for (let x = 0, i = (y + size) * stride + size; x < w; x++, at++, i++) {
      const near = bits[i - dy - dx] + bits[i - dy] + bits[i - dy + dx] + bits[i - dx] +
        bits[i + dx] + bits[i + dy - dx] + bits[i + dy] + bits[i + dy + dx];
      if (bits[i]) {
        fills[at] = dark(x + shape.x, y + shape.y) ? shaded : plain;
        if (near < 8) lines[at] = plain;
      } else if (near > 0) lines[at] = around;
    }
  }
  return { x: shape.x - size, y: shape.y - size, fill: canvasOf(fill), line: canvasOf(line) };
}

function canvasOf(data) {
  const canvas = blank(data.width, data.height);
  canvas.getContext("2d").putImageData(data, 0, 0);
  return canvas;
}

function blank(width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  return canvas;
}
