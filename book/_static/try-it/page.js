// The page "Try it": pictures in, what the network says of them out. Nothing is fetched but settings.json before the reader
// asks for the network, and nothing ever leaves the reader's machine.

(async () => {
  const root = document.getElementById("try-it-page"), here = new URL(".", document.currentScript.src);
  const part = name => root.querySelector(`[data-part=${name}]`);
  const say = text => { part("status").textContent = text; };
  const made = (tag, text = "", properties = {}) => Object.assign(document.createElement(tag), {textContent: text}, properties);
  const percent = chance => `${(100 * chance).toFixed(1)} %`;
  root.hidden = false;
  if (location.protocol === "file:") {
    say("A browser loads no network from a file. Serve the site, as with `python -m http.server` in its folder, and open it there.");
    return;
  }
  const known = await fetch(new URL("settings.json", here)).then(answer => answer.json());
  const asked = new Map(), pictures = [];
  let worker, decode, numbered = 0;

  part("load").textContent = `Load the network (${(known.bytes / 1e6).toFixed(0)} MB)`;
  part("load").hidden = false;
  part("load").onclick = async () => {
    part("load").disabled = true;
    say("Loading ...");
    try {
      ({decode} = await import(new URL("picture.js", here)));
      worker = new Worker(new URL("worker.js", here), {type: "module"});
      worker.onmessage = ({data}) => receive(data);
      worker.onerror = event => receive({id: 0, error: event.message || "the worker did not start"});
      await ask({settings: known});
    } catch (error) {
      part("load").disabled = false;
      say(`The network did not load: ${error.message}`);
      return;
    } finally {
      part("bar").hidden = true;
    }
    part("load").hidden = true;
    part("pictures").hidden = false;
    part("file").focus();
    say("The network is here. Give it a picture.");
  };

  function ask(message) {
    return new Promise((resolve, reject) => {
      asked.set(numbered, {resolve, reject});
      worker.postMessage({id: numbered++, ...message});
    });
  }

  function receive({id, done, error, progress}) {
    if (progress !== undefined) {
      part("bar").hidden = false;
      part("bar").value = progress;
      return;
    }
    const {resolve, reject} = asked.get(id) ?? {};
    asked.delete(id);
    if (error) reject?.(new Error(error));
    else resolve?.(done);
  }

  for (const {file, name} of known.pictures) {
    const button = made("button", name, {type: "button", className: "try-it-phantom"});
    button.prepend(made("img", "", {src: new URL(file, here), alt: "", width: 96, height: 96, loading: "lazy"}));
    button.onclick = () => add(phantom(file, name));
    part("phantoms").append(button);
  }
  part("file").onchange = event => add([...event.target.files]).then(() => { event.target.value = ""; });
  part("drop").ondragover = event => { event.preventDefault(); part("drop").classList.add("over"); };
  part("drop").ondragleave = () => part("drop").classList.remove("over");
  part("drop").ondrop = event => {
    event.preventDefault();
    part("drop").classList.remove("over");
    add([...event.dataTransfer.files]);
  };
  part("clear").onclick = () => {
    pictures.length = 0;
    part("answers").replaceChildren();
    summarise();
    say("A new patient: give a picture.");
    part("file").focus();
  };

  async function phantom(file, name) {
    return [new File([await (await fetch(new URL(file, here))).blob()], name)];
  }

  let before = Promise.resolve();
  function add(given) {  // one after the other, in the order in which they were given, whenever they arrive
    return before = before.then(async () => { for (const file of await given) await one(file); })
      .catch(error => say(error.message));
  }

  async function one(file) {
    say(`${file.name}: looking ...`);
    try {
      const picture = await decode(file, known.limits), found = {name: file.name, ...await ask({picture})};
      pictures.push(found);
      part("answers").append(card(found));
      say(`${file.name}: ${inWords(found.chances)}${found.notes.length ? `. Note: ${found.notes.join("; ")}` : ""}`);
    } catch (error) {
      part("answers").append(made("li", `${file.name}: ${error.message}`, {className: "try-it-refused"}));
      say(`${file.name}: ${error.message}`);
    } finally {
      part("bar").hidden = true;
    }
    summarise();
  }

  const best = chances => chances.indexOf(Math.max(...chances));
  const inWords = chances => `${known.classes[best(chances)]}, ${percent(chances[best(chances)])}`;

  /** The one class that is left at the stated coverage, as `evaluation.sets.answer`. */
  function left(chances, of) {
    if (known.sets[of] === undefined) return "";
    const names = known.classes.filter((_, k) => 1 - chances[k] <= known.sets[of]);
    return names.length === 1 ? names[0] : known.cannot_tell;
  }

  function answered(chances, of, notes) {
    const list = made("dl"), row = (name, text, key) => {
      const value = made("dd", text);
      value.dataset.value = key;
      list.append(made("dt", name), value);
    };
    row("Answer", inWords(chances), "answer");
    list.dataset.chances = JSON.stringify(chances);
    if (left(chances, of)) row(`At a coverage of ${percent(known.coverage)}`, left(chances, of), "set");
    row("Probabilities", known.temperature ? `at the temperature ${known.temperature.toFixed(2)}, fitted out of fold to BreakHis;`
      + " elsewhere not calibrated" : "not calibrated", "temperature");
    row("Notes", notes.join("; ") || "none", "notes");
    return list;
  }

  function card({name, tile, stains, chances, notes}) {
    const item = made("li"), images = made("div", "", {className: "try-it-tiles"});
    [["what the network sees", tile], ["haematoxylin", stains[0]], ["eosin", stains[1]]].forEach(([what, pixels]) => {
      const figure = made("figure");
      figure.append(drawn(pixels, `${name}: ${what}`), made("figcaption", what));
      images.append(figure);
    });
    item.append(made("h3", name), images, answered(chances, "picture", notes), made("p", known.warning, {className: "try-it-warning"}));
    return item;
  }

  function drawn(pixels, label) {
    const side = known.size, canvas = made("canvas", "", {width: side, height: side, role: "img", ariaLabel: label});
    const image = new ImageData(side, side);
    for (let i = 0, j = 0; i < pixels.length; i += 3, j += 4) image.data.set([pixels[i], pixels[i + 1], pixels[i + 2], 255], j);
    canvas.getContext("2d").putImageData(image, 0, 0);
    return canvas;
  }

  /** All pictures as those of one patient: the mean log-probabilities, as `deploy.rows.of_patient`. */
  function summarise() {
    part("patient").hidden = part("clear").hidden = pictures.length === 0;
    if (!pictures.length) return;
    const logs = pictures.map(({chances}) => chances.map(chance => Math.log(Math.max(chance, Number.MIN_VALUE * 2 ** 52))));
    const mean = known.classes.map((_, k) => logs.reduce((sum, log) => sum + log[k], 0) / logs.length);
    const top = Math.max(...mean), powers = mean.map(x => Math.exp(x - top)), sum = powers.reduce((a, b) => a + b);
    const chances = powers.map(x => x / sum), at = best(chances);
    const odds = logs.map(log => log[at] - Math.log(log.reduce((all, x, k) => k === at ? all : all + Math.exp(x), 0)));
    const middle = odds.reduce((a, b) => a + b) / odds.length;
    const spread = Math.sqrt(odds.reduce((all, x) => all + (x - middle) ** 2, 0) / odds.length);
    const counts = new Map();
    pictures.flatMap(({notes}) => notes).forEach(note => counts.set(note, (counts.get(note) ?? 0) + 1));
    const notes = [...counts].map(([note, count]) => `${note}: ${count} of ${pictures.length}`);
    const many = pictures.length === 1 ? "One picture" : `${pictures.length} pictures of one patient, their mean`;
    const list = answered(chances, "patient", notes);
    const value = made("dd", `${spread.toFixed(2)} (standard deviation of the log-odds over pictures)`);
    value.dataset.spread = spread;
    if (pictures.length > 1) list.append(made("dt", "Spread"), value);
    part("patient").replaceChildren(made("h3", many), list, made("p", known.warning, {className: "try-it-warning"}));
  }
})();
