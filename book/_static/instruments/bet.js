// First a bet on what a split by image is worth; then a switch between both splits of the same probe.

document.querySelectorAll("[data-instrument=bet]").forEach(root => {
  const {magnifications, splits, gap} = JSON.parse(root.querySelector("script").textContent);
  const made = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);
  const drawn = (tag, attributes, text = "") => {
    const one = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
    one.textContent = text;
    return one;
  };
  const two = value => value.toFixed(2), live = made("div", {className: "instrument-live"});
  root.querySelector(".instrument-static").replaceWith(live);

  const form = made("form", {className: "instrument-controls"}), label = made("label");
  const guess = made("input", {type: "number", min: -0.5, max: 0.5, step: 0.01, required: true});
  label.append("Your bet: split by image instead of by patient, the AUROC of the same probe rises by ", guess, " (0.05 is five points)");
  form.append(label, made("button", {type: "submit", textContent: "Place the bet", className: "btn btn-primary"}));
  form.addEventListener("submit", event => {
    event.preventDefault();
    reveal(Number(guess.value));
  });
  live.append(form);

  function reveal(bet) {
    const told = made("p", {className: "instrument-told", tabIndex: -1}), off = bet - gap[0];
    const inside = bet >= gap[1] && bet <= gap[2];
    told.textContent = `You bet ${two(bet)}. It rose by ${two(gap[0])} [${two(gap[1])}, ${two(gap[2])}]: you were `
      + `${Math.abs(off) < 0.005 ? "right to the point" : `${two(Math.abs(off))} too ${off > 0 ? "high" : "low"}`}, `
      + `${inside ? "inside" : "outside"} the interval.`;
    const choice = made("fieldset", {className: "instrument-controls"}), plot = drawn("svg", {viewBox: "0 0 360 190", role: "img", class: "instrument-plot"});
    choice.append(made("legend", {textContent: "Split"}));
    Object.keys(splits).forEach((split, i) => {
      const label = made("label", {className: "instrument-choice"});
      const radio = made("input", {type: "radio", name: "split", value: split, checked: i === 0});
      radio.addEventListener("change", () => draw(plot, split));
      label.append(radio, ` ${split}`);
      choice.append(label);
    });
    form.replaceWith(told, choice, plot);
    draw(plot, Object.keys(splits)[0]);
    told.focus();
  }

  function draw(plot, chosen) {
    const left = 56, right = 350, x = value => left + Math.min(1, Math.max(0, value)) * (right - left);
    const step = 150 / magnifications.length, y = i => 8 + step * (i + 0.5);
    plot.replaceChildren(drawn("title", {}, `AUROC, split ${chosen}: `
      + magnifications.map((at, i) => `${at} ${two(splits[chosen][i][0])}`).join(", ") + "."));
    for (const at of [0, 0.25, 0.5, 0.75, 1]) {
      plot.append(drawn("line", {x1: x(at), x2: x(at), y1: 8, y2: 162, class: at === 0.5 ? "guess" : "grid"}));
      plot.append(drawn("text", {x: x(at), y: 178, "text-anchor": "middle"}, at));
    }
    magnifications.forEach((at, i) => {
      plot.append(drawn("text", {x: left - 6, y: y(i) + 4, "text-anchor": "end"}, at));
      for (const [split, rows] of Object.entries(splits)) {
        const [value, low, high] = rows[i], look = split === chosen ? "chosen" : "other";
        plot.append(drawn("line", {x1: x(low), x2: x(high), y1: y(i), y2: y(i), class: look}));
        plot.append(drawn("circle", {cx: x(value), cy: y(i), r: 4, class: look}));
      }
    });
  }
});
