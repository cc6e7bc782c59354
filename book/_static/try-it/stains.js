// What `histotransfer.stain` and `histotransfer.deploy.notes` compute, in the same order and in 32-bit floats where they do.
// `known` is settings.json: every constant comes from the package, none is written here.

const f = Math.fround;
export class NotNormalisable extends Error {}

/** Round half to even, as Python and numpy do. */
const rounded = x => {
  const low = Math.floor(x), rest = x - low;
  return rest > 0.5 || (rest === 0.5 && low % 2) ? low + 1 : low;
};
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const norm = a => Math.sqrt(dot(a, a));
const unit = a => a.map(x => x / norm(a));
const angle = (a, b) => Math.acos(Math.min(1, Math.max(-1, dot(a, b) / norm(a) / norm(b)))) * 180 / Math.PI;

/** The value at a fraction of a list, nearest rank. */
const quantile = (values, q) => Float32Array.from(values).sort()[rounded(q * (values.length - 1))];

let table = null;  // grey level to optical density
export function densities(known) {
  table ??= Float32Array.from({length: 256}, (_, level) => Math.log(known.stain.light / (level + 1)));
  return table;
}

/** Optical densities [red, green, blue] of evenly spread pixels of a tile. */
export function sampleDensity(tile, known) {
  const count = tile.length / 3, stride = Math.floor(count / known.stain.sample);
  const step = stride < 1 ? 1 : stride | 1, density = densities(known);
  return [0, 1, 2].map(channel => {
    const out = new Float32Array(Math.ceil(count / step));
    for (let i = 0; i < out.length; i++) out[i] = density[tile[3 * i * step + channel]];
    return out;
  });
}

const where = (density, test) => density[0].reduce((found, _, i) => {
  if (test(density[0][i], density[1][i], density[2][i])) found.push(i);
  return found;
}, []);
const isTissue = known => (r, g, b) => Math.min(r, g, b) >= f(known.stain.transparent);
const isGlass = known => (r, g, b) => Math.max(r, g, b) < densities(known)[known.stain.glass_level];

function isInk(r, g, b, {ink_dark: dark, ink_green: dull, ink_green_blue: faint}) {
  if (f(f(r + g) + b) <= f(dark)) return false;
  if (Math.min(r, g, b) > f(dark)) return true;
  return g < f(f(dull) * r) || faint.some(([green, blue]) => g < f(f(green) * r) && b < f(f(blue) * r));
}

/** Stain vectors, unit rows haematoxylin and eosin, and the 99th percentiles of their amounts; or NotNormalisable. */
export function fitStains(density, known) {
  const limits = known.stain, count = density[0].length, tissue = where(density, isTissue(known));
  if (tissue.length < Math.max(limits.min_tissue_pixels, limits.min_tissue * count)) {
    throw new NotNormalisable("too little tissue");
  }
  const ink = where(density, (r, g, b) => isInk(r, g, b, limits)).length;
  if (ink / count > limits.max_ink) throw new NotNormalisable("pen ink");
  const stains = macenko(density.map(channel => Float32Array.from(tissue, i => channel[i])), known);
  const between = angle(stains[0], stains[1]);
  if (between < limits.stain_angle[0]) throw new NotNormalisable("one stain only");
  if (between > limits.stain_angle[1]) throw new NotNormalisable("stain vectors too far apart");
  const drift = Math.max(...stains.map((stain, i) => angle(stain, limits.reference_stains[i])));
  if (drift > limits.max_drift || Math.min(...stains.flat()) < limits.min_absorption) {
    throw new NotNormalisable("not the colours of haematoxylin and eosin");
  }
  return {stains, amounts: concentrations(density, stains).map(amount => quantile(amount, 0.99))};
}

/** Macenko's two vectors of tissue densities: the extreme directions in the plane of the two largest principal axes. */
function macenko(density, known) {
  const count = density[0].length, means = density.map(channel => channel.reduce((sum, x) => sum + x, 0) / count);
  const covariance = density.map((a, i) => density.map((b, j) => {
    let sum = 0;
    for (let n = 0; n < count; n++) sum += (a[n] - means[i]) * (b[n] - means[j]);
    return sum / count;
  }));
  const [[least], [second, across], [first, along]] = eigen(covariance);
  if (first < known.stain.min_variance) throw new NotNormalisable("no contrast: the tissue has one colour");
  if (least > known.stain.max_flatness * second) {
    throw new NotNormalisable("no stain plane: the colours scatter in all directions");
  }
  const sign = along[0] + along[1] + along[2] > 0 ? 1 : -1, plane = [along, across].map(axis => axis.map(x => sign * x));
  const tangents = new Float32Array(count);
  for (let n = 0; n < count; n++) {
    const pixel = [density[0][n], density[1][n], density[2][n]];
    tangents[n] = f(dot(plane[1], pixel)) / Math.max(f(dot(plane[0], pixel)), 1e-3);
  }
  const stains = [0.01, 0.99].map(q => {
    const tangent = quantile(tangents, q);
    return unit(plane[0].map((x, i) => x + tangent * plane[1][i]));
  });
  return stains[0][0] > stains[1][0] ? stains : stains.reverse();  // haematoxylin absorbs more red light
}

/** Eigenvalues with their vectors of a symmetric 3x3 matrix, ascending: Jacobi's rotations. */
function eigen(matrix) {
  const a = matrix.map(row => [...row]), v = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  for (let sweep = 0; sweep < 20; sweep++) {
    for (const [p, q] of [[0, 1], [0, 2], [1, 2]]) {
      if (Math.abs(a[p][q]) < 1e-300) continue;
      const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
      const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
      const c = 1 / Math.sqrt(t * t + 1), s = t * c;
      for (const m of [a, v]) {
        for (const row of m) [row[p], row[q]] = [c * row[p] - s * row[q], s * row[p] + c * row[q]];
      }
      [a[p], a[q]] = [0, 1].map(k => a[p].map((x, i) => k ? s * x + c * a[q][i] : c * x - s * a[q][i]));
    }
  }
  return [0, 1, 2].map(i => [a[i][i], v.map(row => row[i])]).sort((x, y) => x[0] - y[0]);
}

/** The pseudo-inverse (2 rows of 3) of two stain vectors: amounts are its product with a density. */
export function inverse([h, e]) {
  const hh = dot(h, h), ee = dot(e, e), he = dot(h, e), det = hh * ee - he * he;
  return [h.map((x, i) => (ee * x - he * e[i]) / det), e.map((x, i) => (hh * x - he * h[i]) / det)];
}

/** Amounts [haematoxylin, eosin] of densities, least squares. */
export function concentrations(density, stains) {
  return inverse(stains).map(row => {
    const out = new Float32Array(density[0].length);
    for (let i = 0; i < out.length; i++) out[i] = row[0] * density[0][i] + row[1] * density[1][i] + row[2] * density[2][i];
    return out;
  });
}

/** The stain vectors of a tile, or the published ones where a guard fails. */
export function stainsOf(tile, known) {
  try {
    return fitStains(sampleDensity(tile, known), known).stains;
  } catch (reason) {
    if (!(reason instanceof NotNormalisable)) throw reason;
    return known.stain.reference_stains.map(unit);
  }
}

/** The tile as if one stain (0 haematoxylin, 1 eosin) alone were there. */
export function unmixed(tile, stains, stain, known) {
  const row = inverse(stains)[stain];
  return mapDensity(tile, [0, 1, 2].map(i => row.map(x => stains[stain][i] * x)), [0, 0, 0], known);
}

/** `density -> matrix @ density + offset` for every pixel, rendered in grey levels again. */
function mapDensity(tile, matrix, offset, known) {
  const out = new Uint8ClampedArray(tile.length), density = densities(known);
  const affine = matrix.map((row, i) => [...row.map(x => f(-x)), f(Math.log(known.stain.light) - offset[i])]);
  for (let i = 0; i < tile.length; i += 3) {
    const r = density[tile[i]], g = density[tile[i + 1]], b = density[tile[i + 2]];
    for (let channel = 0; channel < 3; channel++) {
      const row = affine[channel], level = row[0] * r + row[1] * g + row[2] * b + row[3];
      out[i + channel] = rounded(Math.abs(Math.exp(Math.min(level, 6)) - 1));  // e^6 is white all the same
    }
  }
  return out;
}

/** `mapped` with the glass of `tile` put back, blended over the pale margin. */
function keepGlass(tile, mapped, {stain: {ramp: [low, high]}}) {
  const out = new Uint8ClampedArray(tile.length);
  for (let i = 0; i < tile.length; i += 3) {
    const rise = Math.min(1, Math.max(0, (Math.min(tile[i], tile[i + 1], tile[i + 2]) - low) / (high - low)));
    const glass = f(rise * rise * (3 - 2 * rise));
    for (let j = i; j < i + 3; j++) out[j] = rounded(f(mapped[j] + f(glass * (tile[j] - mapped[j]))));
  }
  return out;
}

/** A draw of stain jitter: each stain's amount times alpha, plus beta. `StainJitter.__call__`. */
export function jittered(tile, stains, alpha, beta, known) {
  const rows = inverse(stains);
  const matrix = [0, 1, 2].map(i => [0, 1, 2].map(
    j => (i === j ? 1 : 0) + [0, 1].reduce((sum, s) => sum + stains[s][i] * (alpha[s] - 1) * rows[s][j], 0)));
  const offset = [0, 1, 2].map(i => stains[0][i] * beta[0] + stains[1][i] * beta[1]);
  return keepGlass(tile, mapDensity(tile, matrix, offset, known), known);
}

/** The tile with normalised colours, and why it was left as it is, if it was. */
export function normalise(tile, known) {
  if (known.normaliser === "none") return {tile, unchanged: ""};
  try {
    return {tile: macenkoNormalised(tile, known), unchanged: ""};
  } catch (reason) {
    if (!(reason instanceof NotNormalisable)) throw reason;
    return {tile, unchanged: reason.message};
  }
}

function macenkoNormalised(tile, known) {
  const density = sampleDensity(tile, known), {stains, amounts, glass} = known.reference;
  if (isRendered(density, known)) return tile;
  const own = fitStains(density, known), gain = amounts.map((amount, i) => amount / Math.max(own.amounts[i], 1e-6));
  if (Math.min(...gain) < 1 / known.stain.max_gain || Math.max(...gain) > known.stain.max_gain) {
    throw new NotNormalisable("staining too weak or too strong to match");
  }
  const rows = inverse(own.stains), matrix = [0, 1, 2].map(i => [0, 1, 2].map(
    j => stains[0][i] * gain[0] * rows[0][j] + stains[1][i] * gain[1] * rows[1][j]));
  const mapped = mapDensity(tile, matrix, glass, known);
  return glassShift(density, matrix, known) > known.stain.max_glass_shift ? keepGlass(tile, mapped, known) : mapped;
}

/** Whether densities are in the reference's stain plane already, with its amounts. */
function isRendered(density, known) {
  const {stains: [h, e], stains, amounts, glass} = known.reference, limits = known.stain;
  const stained = density.map((channel, i) => channel.map(x => x - glass[i]));
  const stride = Math.max(1, Math.floor(density[0].length / 5000));
  const few = stained.map(channel => channel.filter((_, i) => i % stride === 0)), tissue = where(few, isTissue(known));
  if (!tissue.length) return false;
  const total = tissue.map(i => f(f(few[0][i] + few[1][i]) + few[2][i])), ordered = Float32Array.from(total).sort();
  const half = ordered.length / 2;
  const median = Number.isInteger(half) ? f((ordered[half - 1] + ordered[half]) / 2) : ordered[Math.floor(half)];
  const normal = unit([h[1] * e[2] - h[2] * e[1], h[2] * e[0] - h[0] * e[2], h[0] * e[1] - h[1] * e[0]]);
  const off = tissue.filter((_, n) => total[n] >= median)
    .map(i => Math.abs(dot(normal, [few[0][i], few[1][i], few[2][i]])));
  if (quantile(off, 0.75) > limits.in_plane) return false;
  const change = concentrations(stained, stains).map((amount, i) => Math.abs(quantile(amount, 0.99) / amounts[i] - 1));
  const clipped = density.some(channel => channel.includes(densities(known)[255]));
  return (clipped ? Math.min(...change) : Math.max(...change)) < limits.same_amount;
}

/** CIELAB delta E by which a linear map moves the glass of densities; 0 without glass. */
function glassShift(density, matrix, known) {
  const glass = where(density, isGlass(known));
  if (glass.length < Math.max(1, known.stain.min_glass * density[0].length)) return 0;
  const mean = density.map(channel => glass.reduce((sum, i) => sum + channel[i], 0) / glass.length);
  const colour = Uint8ClampedArray.from(mean, x => rounded(known.stain.light * Math.exp(-x) - 1));
  const [a, b] = [mapDensity(colour, matrix, known.reference.glass, known), colour].map(lab);
  return Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}

/** CIELAB (D65) of one sRGB pixel. */
function lab(pixel) {
  const [r, g, b] = Array.from(pixel, x => x > 10 ? ((x / 255 + 0.055) / 1.055) ** 2.4 : x / 255 / 12.92);
  const [x, y, z] = [
    (0.412453 * r + 0.35758 * g + 0.180423 * b) / 0.950456,
    0.212671 * r + 0.71516 * g + 0.072169 * b,
    (0.019334 * r + 0.119193 * g + 0.950227 * b) / 1.088754,
  ].map(t => t > 0.008856 ? Math.cbrt(t) : 7.787 * t + 16 / 116);
  return [116 * y - 16, 500 * (x - y), 200 * (y - z)];
}

/** What is odd about a picture, as `deploy.notes.notes`. */
export function notes(picture, tile, unchanged, known, resize) {
  const found = [oddSize(picture.width, picture.height, known), oddStains(tile, known)];
  if (!found[1] && sharpness(tile, known, resize) < known.notes.min_sharpness) found.push(known.notes.out_of_focus);
  if (unchanged) found.push(`colours not normalised (${unchanged})`);
  return found.filter(Boolean);
}

function oddSize(width, height, {size, notes: limits}) {
  const long = Math.max(width, height), short = Math.min(width, height);
  const odd = long > limits.max_aspect * short || long > limits.max_shrunk * size || limits.max_enlarged * short < size;
  return odd ? `unusual size (${width}x${height} pixels)` : "";
}

function oddStains(tile, known) {
  try {
    fitStains(sampleDensity(tile, known), known);
    return "";
  } catch (reason) {
    if (!(reason instanceof NotNormalisable)) throw reason;
    return reason.message;
  }
}

/** The share of the variance of brightness that a slight blur takes away. */
export function sharpness(tile, known, resize) {
  const whole = Math.sqrt(tile.length / 3), side = Math.min(whole, known.notes.focus_side);
  const small = resize({width: whole, height: whole, pixels: tile}, side), grey = new Float32Array(side * side);
  for (let i = 0; i < grey.length; i++) {  // OpenCV's weights in 15 bits
    grey[i] = (9798 * small[3 * i] + 19235 * small[3 * i + 1] + 3735 * small[3 * i + 2] + 16384) >> 15;
  }
  const blurred = blur(blur(grey, side, 1, known), side, side, known);
  const variance = values => {
    const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
    return values.reduce((sum, x) => sum + (x - mean) ** 2, 0) / values.length;
  };
  return variance(grey.map((x, i) => x - blurred[i])) / Math.max(variance(grey), 1.17549435e-38);
}

/** A Gaussian along rows (step 1) or columns (step side), mirrored at the edges, as OpenCV's of float pixels. */
function blur(grey, side, step, known) {
  const sigma = known.notes.detail, reach = rounded(sigma * 8 + 1) >> 1;
  const raw = Array.from({length: 2 * reach + 1}, (_, i) => Math.exp(-((i - reach) ** 2) / (2 * sigma * sigma)));
  const total = raw.reduce((sum, x) => sum + x, 0), out = new Float32Array(grey.length);
  const mirrored = i => i < 0 ? -i : i >= side ? 2 * side - 2 - i : i;
  for (let line = 0; line < side; line++) {
    const start = step === 1 ? line * side : line;
    for (let x = 0; x < side; x++) {
      let sum = 0;
      for (let k = -reach; k <= reach; k++) sum += raw[k + reach] / total * grey[start + step * mirrored(x + k)];
      out[start + step * x] = sum;
    }
  }
  return out;
}
