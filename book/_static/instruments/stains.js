// Haematoxylin and eosin of a phantom: what a pixel lets through is light * exp(-amounts @ stains).

document.querySelectorAll("[data-instrument=stains]").forEach(root => {
  const known = JSON.parse(root.querySelector("script").textContent), {side, stains, light, highest} = known;
  const amounts = known.steps.map(text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0)));
  const names = ["Haematoxylin", "Eosin"];
  const made = (tag, properties = {}) => Object.assign(document.createElement(tag), properties);

  const canvas = made("canvas", {width: side, height: side});
  canvas.setAttribute("role", "img");
  const context = canvas.getContext("2d"), image = context.createImageData(side, side);
  const controls = made("div", {className: "instrument-controls"}), told = made("p", {className: "instrument-told"});
  const sliders = names.map(name => {
    const label = made("label"), shown = made("output"), slider = made("input", {type: "range", min: 0, max: 2, step: 0.05, value: 1});
    label.append(`${name} `, shown, slider);
    controls.append(label);
    slider.addEventListener("input", draw);
    return {slider, shown};
  });
  const reset = made("button", {type: "button", textContent: "As it was stained", className: "btn btn-primary"});
  reset.addEventListener("click", () => {
    sliders.forEach(({slider}) => { slider.value = 1; });
    draw();
  });
  controls.append(reset, told);

  function draw() {
    const times = sliders.map(({slider}) => Number(slider.value)), sums = [0, 0, 0];
    // One table a stain: its steps to what they let through in each channel. Densities add, so these multiply.
    const passed = [0, 1].map(stain => light.map((_, channel) => Float64Array.from({length: 256}, (_, step) =>
      Math.exp(-times[stain] * step / 255 * highest[stain] * stains[stain][channel]))));
    for (let i = 0; i < side * side; i++) {
      for (let channel = 0; channel < 3; channel++) {
        const share = passed[0][channel][amounts[0][i]] * passed[1][channel][amounts[1][i]];
        image.data[4 * i + channel] = Math.round(light[channel] * share);
        sums[channel] -= Math.log(share);
      }
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
    const [red, green, blue] = sums.map(sum => (sum / side / side).toFixed(2));
    sliders.forEach(({shown}, i) => { shown.textContent = `× ${times[i].toFixed(2)}`; });
    told.textContent = `Mean optical density: red ${red}, green ${green}, blue ${blue}.`;
    canvas.setAttribute("aria-label", `The field with haematoxylin × ${times[0].toFixed(2)} and eosin × ${times[1].toFixed(2)}.`);
  }

  draw();
  const live = made("div", {className: "instrument-live"});
  live.append(canvas, controls);
  root.querySelector(".instrument-static").replaceWith(live);
});
