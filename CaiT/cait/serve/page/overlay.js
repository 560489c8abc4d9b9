// The pixels that the model sees, and a map of attention over them.

// matplotlib's inferno, as visualize.py has it, at nine places.
const COLOURS = [
  [0, 0, 4], [33, 12, 74], [87, 16, 110], [138, 34, 106], [188, 55, 84],
  [228, 90, 49], [249, 142, 9], [249, 203, 53], [252, 255, 164],
];

function colour(value) {
  const place = Math.min(Math.max(value, 0), 1) * (COLOURS.length - 1);
  const low = Math.min(Math.floor(place), COLOURS.length - 2);
  return COLOURS[low].map((from, channel) => from + (COLOURS[low + 1][channel] - from) * (place - low));
}

// Draws a PNG in base64 at its own size, and returns its pixels; the style sheet enlarges the canvas.
export async function drawPixels(canvas, png) {
  const bytes = Uint8Array.from(atob(png), (character) => character.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }), { colorSpaceConversion: "none" });
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

// Mean of the heads of [head][row][column] for head 0, else that head's map.
export function chosenMap(heads, head) {
  if (head > 0) return heads[head - 1];
  return heads[0].map((row, i) => row.map((_, j) => heads.reduce((sum, map) => sum + map[i][j], 0) / heads.length));
}

// { value, row, column } of the largest value.
export function strongest(map) {
  let best = { value: -Infinity, row: 0, column: 0 };
  map.forEach((values, row) => values.forEach((value, column) => {
    if (value > best.value) best = { value, row, column };
  }));
  return best;
}

// Draws the pixels, in grey under the colours of the map. Patches are not smoothed: the model has no finer ones.
export function drawMap(canvas, pixels, map, opacity) {
  const context = canvas.getContext("2d", { willReadFrequently: true }); // pixels are put, nothing is for a GPU to do
  const { width, height, data } = pixels;
  [canvas.width, canvas.height] = [width, height];
  const largest = strongest(map).value || 1;
  const colours = map.map((row) => row.map((value) => colour(value / largest)));
  const result = context.createImageData(width, height);
  for (let y = 0, at = 0; y < height; y++) {
    const row = colours[Math.floor((y * map.length) / height)];
    for (let x = 0; x < width; x++, at += 4) {
      const grey = (data[at] + data[at + 1] + data[at + 2]) / 3;
      const heat = row[Math.floor((x * row.length) / width)];
      for (let channel = 0; channel < 3; channel++) {
        result.data[at + channel] = (1 - opacity) * grey + opacity * heat[channel];
      }
      result.data[at + 3] = 255;
    }
  }
  context.putImageData(result, 0, 0);
}
