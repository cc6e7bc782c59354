// A picture file as `histotransfer.pictures` reads it: upright, sRGB, refused where it would be, squeezed as Pillow does.

const BITS = 22;  // of Pillow's fixed-point weights: 32 - 8 - 2
const SUPPORT = 2;  // of the bicubic, in pixels

/** RGB pixels of a file: {width, height, pixels: Uint8ClampedArray of 3 a pixel}. Throws an Error in a reader's words. */
export async function decode(file, limits) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error("not an image, damaged, or of a kind that this browser does not read; save it as PNG");
  }
  const {width, height} = bitmap;
  if (width * height > limits.max_pixels) {
    throw new Error(`${width}x${height} pixels, more than ${limits.max_pixels.toLocaleString("en")}; cut fields from it`);
  }
  if (Math.min(width, height) < limits.min_side) {
    throw new Error(`${width}x${height} pixels are too few to show tissue; give a larger field`);
  }
  const canvas = Object.assign(document.createElement("canvas"), {width, height});
  const context = canvas.getContext("2d", {willReadFrequently: true, colorSpace: "srgb"});
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const pixels = new Uint8ClampedArray(3 * width * height);
  for (let i = 0, j = 0; i < rgba.length; i += 4) {
    if (rgba[i + 3] < 255) throw new Error("partly transparent; flatten it onto its background first");
    pixels[j++] = rgba[i];
    pixels[j++] = rgba[i + 1];
    pixels[j++] = rgba[i + 2];
  }
  refuseDarkAndGrey(pixels, limits);
  return {width, height, pixels};
}

function refuseDarkAndGrey(pixels, {dark, grey, coloured}) {
  let bright = 0, colour = 0, tissue = 0, top = 0, bottom = 255, glass = 0;
  for (let i = 0; i < pixels.length; i += 3) {
    const high = Math.max(pixels[i], pixels[i + 1], pixels[i + 2]);
    const low = Math.min(pixels[i], pixels[i + 1], pixels[i + 2]);
    top = Math.max(top, high);
    bottom = Math.min(bottom, low);
    glass = Math.max(glass, low);
    bright += high >= dark;
    colour += high - low > grey;
  }
  for (let i = 0; i < pixels.length; i += 3) tissue += Math.min(pixels[i], pixels[i + 1], pixels[i + 2]) < glass - grey;
  const count = pixels.length / 3, spread = top - bottom;
  if (spread > 0 && bright <= Math.floor(count / 1000)) {
    throw new Error(`too dark, hardly a pixel reaches ${dark} of 255`);
  }
  if (spread > grey && colour < coloured * tissue) throw new Error("grey picture; a colour picture is needed");
}

/** Pillow's antialiased bicubic to size x size, to the last bit: rows first, then columns, each rounded to 8 bits. */
export function resize({width, height, pixels}, size) {
  if (width === size && height === size) return pixels;
  const narrow = width === size ? pixels : along(pixels, height, width, size, 3, 3 * width, 3 * size);
  return height === size ? narrow : along(narrow, size, height, size, 3 * size, 3, 3);
}

/** Resample `lines` lines from `from` to `to` pixels; steps between pixels of a line, and between lines before and after. */
function along(pixels, lines, from, to, step, line, lineAfter) {
  const out = new Uint8ClampedArray(3 * lines * to);
  weights(from, to).forEach(({first, fixed}, x) => {
    for (let n = 0; n < lines; n++) {
      for (let channel = 0; channel < 3; channel++) {
        let sum = 2 ** (BITS - 1), at = n * line + first * step + channel;
        for (const weight of fixed) {
          sum += pixels[at] * weight;
          at += step;
        }
        out[n * lineAfter + x * step + channel] = Math.floor(sum / 2 ** BITS);  // clamped to 0..255
      }
    }
  });
  return out;
}

function weights(from, to) {
  const scale = from / to, stretch = Math.max(scale, 1), reach = SUPPORT * stretch;
  return Array.from({length: to}, (_, x) => {
    const centre = (x + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(from, Math.trunc(centre + reach + 0.5));
    const raw = Array.from({length: end - first}, (_, i) => bicubic((i + first - centre + 0.5) / stretch));
    const total = raw.reduce((sum, weight) => sum + weight, 0);
    const fixed = raw.map(weight => {
      const scaled = weight / total * 2 ** BITS;
      return Math.trunc(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
    });
    return {first, fixed};
  });
}

function bicubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}
