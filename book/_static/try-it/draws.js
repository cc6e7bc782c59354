// The random numbers of `StainJitter`: a sha256 of the tile seeds numpy's `default_rng` (SeedSequence, PCG64).

const encoder = new TextEncoder(), MASK = (1n << 128n) - 1n, MULTIPLIER = (2549297995355413924n << 64n) + 4865540595714422341n;

/** Alpha and beta, two numbers each, of draw number `draw` of a square tile. */
export function draw(tile, number, {sigma_alpha: a, sigma_beta: b, seed}) {
  const side = Math.sqrt(tile.length / 3), head = encoder.encode(`${seed} ${number} (${side}, ${side}, 3)`);
  const content = new Uint8Array(head.length + tile.length);
  content.set(head);
  content.set(tile, head.length);
  const digest = sha256(content), view = new DataView(digest.buffer), next = generator([0, 4, 8, 12].map(at => view.getUint32(at, true)));
  const uniform = (low, high) => low + (high - low) * next();
  return {alpha: [uniform(1 - a, 1 + a), uniform(1 - a, 1 + a)], beta: [uniform(-b, b), uniform(-b, b)]};
}

/** numpy's `default_rng(entropy).random`, entropy as 32-bit words, the lowest first. */
export function generator(words) {
  while (words.length > 1 && words.at(-1) === 0) words = words.slice(0, -1);
  const state = seedSequence(words, 8).map(BigInt), wide = i => (state[i + 1] << 32n) | state[i];
  const increment = ((((wide(4) << 64n) | wide(6)) << 1n) | 1n) & MASK;
  let now = (((increment + ((wide(0) << 64n) | wide(2))) & MASK) * MULTIPLIER + increment) & MASK;
  return () => {
    now = (now * MULTIPLIER + increment) & MASK;
    const folded = ((now >> 64n) ^ now) & 0xffffffffffffffffn, turn = now >> 122n;
    const bits = ((folded >> turn) | (folded << (64n - turn))) & 0xffffffffffffffffn;
    return Number(bits >> 11n) / 2 ** 53;
  };
}

function seedSequence(entropy, count) {
  let constant = 0x43b0d7e5;
  const hashed = value => {
    value = (value ^ constant) >>> 0;
    constant = Math.imul(constant, 0x931e8875) >>> 0;
    value = Math.imul(value, constant) >>> 0;
    return (value ^ (value >>> 16)) >>> 0;
  };
  const mixed = (x, y) => {
    const value = (Math.imul(0xca01f9dd, x) - Math.imul(0x4973f715, y)) >>> 0;
    return (value ^ (value >>> 16)) >>> 0;
  };
  const pool = [0, 1, 2, 3].map(i => hashed(entropy[i] ?? 0));
  for (let from = 0; from < 4; from++) {
    for (let to = 0; to < 4; to++) if (from !== to) pool[to] = mixed(pool[to], hashed(pool[from]));
  }
  constant = 0x8b51f9dd;
  return Array.from({length: count}, (_, i) => {
    let value = (pool[i % 4] ^ constant) >>> 0;
    constant = Math.imul(constant, 0x58f38ded) >>> 0;
    value = Math.imul(value, constant) >>> 0;
    return (value ^ (value >>> 16)) >>> 0;
  });
}

const PRIMES = [];
for (let n = 2; PRIMES.length < 64; n++) if (PRIMES.every(prime => n % prime)) PRIMES.push(n);
const fraction = x => Math.floor((x - Math.floor(x)) * 2 ** 32);
const ROUND = PRIMES.map(prime => fraction(Math.cbrt(prime)));

/** SHA-256 (FIPS 180-4): the browser's own is not there on pages without https. */
export function sha256(bytes) {
  const padded = new Uint8Array(((bytes.length + 8 >> 6) + 1) * 64), view = new DataView(padded.buffer);
  padded.set(bytes);
  padded[bytes.length] = 0x80;
  view.setUint32(padded.length - 8, Math.floor(bytes.length / 2 ** 29));
  view.setUint32(padded.length - 4, bytes.length << 3);
  const state = PRIMES.slice(0, 8).map(prime => fraction(Math.sqrt(prime))), w = new Uint32Array(64);
  const turn = (x, n) => (x >>> n) | (x << (32 - n));
  for (let at = 0; at < padded.length; at += 64) {
    for (let i = 0; i < 64; i++) {
      if (i < 16) {
        w[i] = view.getUint32(at + 4 * i);
        continue;
      }
      const x = w[i - 15], y = w[i - 2];
      w[i] = w[i - 16] + (turn(x, 7) ^ turn(x, 18) ^ (x >>> 3)) + w[i - 7] + (turn(y, 17) ^ turn(y, 19) ^ (y >>> 10));
    }
    let [a, b, c, d, e, f, g, h] = state;
    for (let i = 0; i < 64; i++) {
      const one = h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + ROUND[i] + w[i];
      const two = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
    }
    [a, b, c, d, e, f, g, h].forEach((word, i) => { state[i] = (state[i] + word) | 0; });
  }
  const digest = new DataView(new ArrayBuffer(32));
  state.forEach((word, i) => digest.setUint32(4 * i, word));
  return new Uint8Array(digest.buffer);
}
