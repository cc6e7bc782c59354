// The network, away from the page's own thread: what `Predictor.predict` does with a decoded picture.

import {InferenceSession, Tensor, env} from "../onnxruntime/ort.wasm.bundle.min.js";
import {draw} from "./draws.js";
import {resize} from "./picture.js";
import {jittered, normalise, notes, stainsOf, unmixed} from "./stains.js";

let known, session, training;

onmessage = async ({data}) => {
  try {
    postMessage({id: data.id, done: data.settings ? await load(data.settings) : await predict(data.picture, data.id)});
  } catch (error) {
    postMessage({id: data.id, error: error.message});
  }
};

async function load(settings) {
  known = settings;
  let come = 0;
  const fetched = async file => {
    const answer = await fetch(new URL(file, import.meta.url));
    if (!answer.ok) throw new Error(`${file}: ${answer.status} ${answer.statusText}`);
    const parts = [], reader = answer.body.getReader();
    for (let part; !(part = await reader.read()).done;) {
      parts.push(part.value);
      postMessage({progress: (come += part.value.length) / known.bytes});
    }
    return new Blob(parts);
  };
  const [wasm, network, beside] = await Promise.all([
    fetched("../onnxruntime/ort-wasm-simd-threaded.wasm.gz"),
    fetched("network.onnx"),
    known.familiarity ? fetched("familiarity.bin") : null,
  ]);
  training = beside && new Float32Array(await beside.arrayBuffer());
  env.wasm.wasmBinary = await unpacked(wasm);
  env.wasm.numThreads = 1;  // more need headers that a host of plain pages does not send
  session = await InferenceSession.create(await network.arrayBuffer(), {executionProviders: ["wasm"]});
  return true;
}

/** Some hosts unpack a file that ends in .gz on the way. */
async function unpacked(blob) {
  const packed = new Uint8Array(await blob.slice(0, 1).arrayBuffer())[0] === 0x1f;
  return new Response(packed ? blob.stream().pipeThrough(new DecompressionStream("gzip")) : blob).arrayBuffer();
}

async function predict(picture, id) {
  const seen = resize(picture, known.size), {tile, unchanged} = normalise(seen, known);
  const odd = notes(picture, seen, unchanged, known, resize), stains = stainsOf(tile, known);
  const views = [...allViews(tile, stains)].slice(0, known.views.averaged ?? Infinity), outputs = [];
  for (const view of views) {
    const given = new Tensor("float32", view(), [1, 3, known.size, known.size]);
    const result = await session.run({[session.inputNames[0]]: given});
    outputs.push(result[session.outputNames[0]].data);
    postMessage({id, progress: outputs.length / views.length});
  }
  const logits = known.classes.map((_, k) => outputs.reduce((sum, x) => sum + x[k], 0) / outputs.length);
  if (logits.some(Number.isNaN)) throw new Error("the network's output is no number");
  if (training && isUnlike(outputs[0].subarray(known.classes.length))) odd.push(known.notes.unlike);
  return {
    tile, stains: [0, 1].map(stain => unmixed(tile, stains, stain, known)),
    chances: softmax(logits), notes: odd, views: views.length,
  };
}

/** The inputs of the network, each made when it is called for: symmetric views of each draw, the tile itself first. */
function* allViews(tile, stains) {
  const {views, augmentation} = known.views, turns = augmentation === "none" ? 1 : views;
  for (let number = 0; number < (augmentation === "views+stain" ? known.jitter.draws : 1); number++) {
    let drawn = tile;
    if (number) {
      const {alpha, beta} = draw(tile, number, known.jitter);
      drawn = jittered(tile, stains, alpha, beta, known);
    }
    for (let turn = 0; turn < turns; turn++) yield () => input(drawn, turn);
  }
}

/** Channels first, ImageNet's mean and deviation; bit 0 flips left to right, 1 top to bottom, 2 transposes. */
function input(tile, turn) {
  const size = known.size, out = new Float32Array(3 * size * size);
  for (let y = 0, at = 0; y < size; y++) {
    for (let x = 0; x < size; x++, at++) {
      const [row, column] = turn & 4 ? [x, y] : [y, x];
      const from = 3 * ((turn & 2 ? size - 1 - row : row) * size + (turn & 1 ? size - 1 - column : column));
      for (let channel = 0; channel < 3; channel++) {
        const level = Math.fround(tile[from + channel] / 255);
        out[channel * size * size + at] = Math.fround(level - Math.fround(known.mean[channel])) / Math.fround(known.deviation[channel]);
      }
    }
  }
  return out;
}

/** `evaluation.familiarity`: whether the nearest training pictures are further away than the threshold. */
function isUnlike(features) {
  const {mean, scale, neighbours, threshold} = known.familiarity, channels = mean.length;
  const own = mean.map((x, i) => (features[i] - x) / scale[i]);
  if (!own.every(Number.isFinite)) return false;
  const distances = new Float64Array(training.length / channels).map((_, picture) => {
    const at = picture * channels;
    return Math.sqrt(own.reduce((sum, x, i) => sum + (x - training[at + i]) ** 2, 0));
  });
  return distances.sort().subarray(0, neighbours).reduce((sum, x) => sum + x) / neighbours > threshold;
}

function softmax(logits) {
  const top = Math.max(...logits), powers = logits.map(x => Math.exp(x - top)), sum = powers.reduce((a, b) => a + b);
  return powers.map(x => x / sum);
}
