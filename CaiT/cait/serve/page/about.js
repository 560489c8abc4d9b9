// What stands below the images: samples to try, the classes, the model and the service, and how a phone gets here.

import { ask } from "./service.js";
import { number, percent, words } from "./language.js";

const SEARCHED = 20; // classes above which there is a field to search them
const find = (selector) => document.querySelector(selector);

function element(tag, text, properties = {}) {
  return Object.assign(document.createElement(tag), { textContent: text, ...properties });
}

// Offers the service's samples; `take(address, name)` gets the one that is chosen.
export function offerSamples(model, take) {
  find("#samples ul").replaceChildren(...model.samples.map((name, index) => {
    const [item, button] = [element("li", ""), element("button", "", { type: "button", className: "sample" })];
    const image = element("img", "", { src: `samples/${index}`, loading: "lazy" });
    button.addEventListener("click", () => take(image.src, name));
    button.append(image);
    item.append(button);
    return item;
  }));
}

// Shows those of the classes whose name or number holds what is searched for.
function showClasses(model) {
  const wanted = find("#search").value.trim().toLowerCase();
  const classes = model.class_names.map((name, index) => ({ name, index }));
  const found = classes.filter(({ name, index }) => name.toLowerCase().includes(wanted) || String(index) === wanted);
  find("#classes ol").replaceChildren(...found.map(({ name, index }) => element("li", name, { value: index })));
  find("#found").textContent = wanted ? words.foundClasses(number(found.length), number(classes.length)) : "";
}

async function showHealth() {
  const health = await ask("health");
  const word = health === null ? "unreachable" : ["ok", "slow"].includes(health.status) ? "healthy" : "failed";
  find("#health").textContent = words[word];
}

function showFacts(model) {
  const [height, width] = model.image_size;
  const versions = Object.entries(model.versions).map(([name, version]) => `${name} ${version}`);
  const facts = {
    factModel: model.model,
    factInput: words.size(width, height, model.channels),
    factCrop: words.crop(percent(model.crop_pct, true)),
    factExif: model.exif ? words.turned : words.notTurned,
    factPrecision: model.precision,
    factWeights: model.weights,
    factVersions: versions.join(", ") || "–",
    factLimits: words.limits(number(model.max_images), number(model.max_upload_bytes / 1e6)),
  };
  const rows = Object.entries(facts).flatMap(([word, value]) => [element("dt", words[word]), element("dd", value)]);
  find("#facts").replaceChildren(...rows);
}

// The addresses at which other devices reach the page: that of the browser, unless it is on the service's computer.
function addresses(model) {
  const here = /^(localhost|127\..*|\[::1\])$/.test(location.hostname);
  return here ? model.addresses : [new URL(".", location.href).href];
}

function showPhone(model) {
  const reached = addresses(model);
  find("#phone p").textContent = reached.length ? words.phoneOpen : words.phoneStart;
  const lines = reached.length ? reached : ["CAIT_TOKEN=… python CaiT/serve.py --host=0.0.0.0"];
  find("#phone ul").replaceChildren(...lines.map((line) => {
    const item = element("li", "");
    item.append(element("code", line));
    return item;
  }));
  find("#phone-token").textContent = reached.length && model.token ? words.phoneToken : "";
}

// All of it, in the language of the page.
export function showAbout(model) {
  find("#classes summary").textContent = words.classes(number(model.class_names.length));
  find("#search-row").hidden = model.class_names.length <= SEARCHED;
  document.querySelectorAll("#samples img").forEach((image, index) => (image.alt = words.sample(index + 1)));
  showClasses(model);
  showFacts(model);
  showPhone(model);
  if (find("#about").open) showHealth();
}

export function listenAbout(modelNow) {
  find("#search").addEventListener("input", () => showClasses(modelNow()));
  find("#about").addEventListener("toggle", () => find("#about").open && showHealth());
}
