// A threshold over the scores of patients: each is a dot, malignant ones above; what is found changes with the line.

document.querySelectorAll("[data-instrument=threshold]").forEach(root => {
  const {scores, malignant, threshold, sensitivity, specificity} = JSON.parse(root.querySelector("script").textContent);
  const made = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);
  const drawn = (tag, attributes, text = "") => {
    const one = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
    one.textContent = text;
    return one;
  };
  const left = 14, width = 332, rows = {malignant: 62, benign: 132}, x = score => left + score * width;

  const picture = drawn("svg", {viewBox: "0 0 360 190", role: "img", class: "instrument-plot"});
  const name = drawn("title", {});
  picture.append(name);
  for (const [text, y] of Object.entries(rows)) picture.append(drawn("text", {x: left, y: y - 40}, `${text} patients`));
  for (const at of [0, 0.25, 0.5, 0.75, 1]) {
    picture.append(drawn("line", {x1: x(at), x2: x(at), y1: 160, y2: 165, class: "axis"}));
    picture.append(drawn("text", {x: x(at), y: 180, "text-anchor": "middle"}, at));
  }
  picture.append(drawn("line", {x1: left, x2: left + width, y1: 160, y2: 160, class: "axis"}));
  const stacks = new Map();  // dots that would cover each other stand on each other
  const dots = scores.map((score, i) => {
    const row = malignant[i] ? "malignant" : "benign", place = `${row} ${Math.round(score * 50)}`, height = stacks.get(place) ?? 0;
    stacks.set(place, height + 1);
    return drawn("circle", {cx: x(score), cy: rows[row] + 14 - 7 * (height % 6), r: 3.2});
  });
  const line = drawn("line", {y1: 12, y2: 160, class: "mark"});
  picture.append(...dots, line);

  const controls = made("div", {className: "instrument-controls"}), label = made("label"), shown = made("output");
  const slider = made("input", {type: "range", min: 0, max: 1, step: 0.01, value: threshold});
  label.append("Threshold ", shown, slider);
  const table = made("table", {className: "dataframe"});
  const reset = made("button", {type: "button", textContent: `The threshold that was fixed: ${threshold}`, className: "btn btn-primary"});
  controls.append(label, reset, table);
  slider.addEventListener("input", draw);
  reset.addEventListener("click", () => {
    slider.value = threshold;
    draw();
  });

  function draw() {
    const at = Number(slider.value), all = malignant.filter(Boolean).length, counts = {hit: 0, missed: 0, alarm: 0, passed: 0};
    scores.forEach((score, i) => {
      const called = score >= at, kind = malignant[i] ? (called ? "hit" : "missed") : (called ? "alarm" : "passed");
      counts[kind]++;
      dots[i].setAttribute("class", called === malignant[i] ? "right" : "wrong");
    });
    line.setAttribute("x1", x(at));
    line.setAttribute("x2", x(at));
    shown.textContent = at.toFixed(2);
    const lines = [
      ["sensitivity", sensitivity[counts.hit]],
      ["specificity", specificity[counts.passed]],
      ["malignant, missed", counts.missed],
      ["benign, called malignant", counts.alarm],
    ];
    table.replaceChildren(...lines.map(([what, text]) => {
      const row = made("tr");
      row.append(made("th", {textContent: what, scope: "row"}), made("td", {textContent: text}));
      return row;
    }));
    name.textContent = `Scores of ${all} malignant and ${scores.length - all} benign patients, with the threshold at ${at.toFixed(2)}.`;
  }

  draw();
  const live = made("div", {className: "instrument-live"});
  live.append(picture, controls);
  root.querySelector(".instrument-static").replaceWith(live);
});
