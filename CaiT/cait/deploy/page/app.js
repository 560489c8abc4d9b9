// The page: takes images, asks the service about each, and shows what it says.

import { WORDS } from "./words.js";
import { chosenMap, draw, readPicture, strongest } from "./overlay.js";

const AT_A_TIME = 4; // requests
const ATTEMPTS = 6; // at a full queue
const BYTES_OF_A_FORM = 2000; // beside the image

const find = (selector, within = document) => within.querySelector(selector);
const results = find("#results");
const cards = [];
let language = (localStorage.getItem("language") || navigator.language || "en").startsWith("zh") ? "zh" : "en";
let model = null;
let words = WORDS[language];
let last = () => ""; // the status line, in whichever language

function say(sentence) {
  last = sentence;
  find("#status").textContent = sentence();
}

const percent = (value) =>
  new Intl.NumberFormat(language, { style: "percent", minimumFractionDigits: 2, maximumFractionDigits: 2 }).format(value);
const number = (value, digits) =>
  new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);

function translate(within = document) {
  for (const element of within.querySelectorAll("[data-word]")) element.textContent = words[element.dataset.word];
}

function setLanguage(code) {
  language = code;
  words = WORDS[code];
  document.documentElement.lang = code === "zh" ? "zh-CN" : "en";
  const button = find("#language");
  button.textContent = words.other;
  button.lang = words.otherCode;
  translate();
  if (model) {
    find("#model").textContent = words.subtitle(model.model, model.class_names.length);
    document.title = `CaiT · ${model.model}`;
  }
  find("#status").textContent = last();
  cards.forEach((card) => card.show());
}

// One image and its answer.
class Card {
  constructor(file) {
    this.file = file;
    this.name = file.name || "image";
    this.state = "waiting";
    this.problem = null;
    this.element = find("#card").content.cloneNode(true).firstElementChild;
    this.part = (selector) => find(selector, this.element);
    this.part(".name").textContent = this.name;
    for (const slider of this.element.querySelectorAll("input")) slider.addEventListener("input", () => this.showOverlay());
    results.prepend(this.element);
    cards.push(this);
    this.show();
  }

  fail(problem, detail = "") {
    this.state = "failed";
    this.problem = problem;
    this.detail = detail;
    this.show();
  }

  async succeed(result, milliseconds) {
    this.result = result;
    this.milliseconds = milliseconds;
    try {
      this.picture = await readPicture(this.file, this.part(".seen"), model);
    } catch {
      this.picture = null; // TIFF, mostly: the service reads it, the browser does not
    }
    if (result.attention) {
      this.part(".layer").max = this.part(".layer").value = result.attention.maps.length;
      this.part(".head").max = result.attention.maps[0].length;
    }
    this.state = "answered";
    this.show();
  }

  show() {
    translate(this.element);
    const problem = this.part(".problem");
    this.element.dataset.state = this.state;
    problem.hidden = this.state === "answered" && this.picture !== null;
    if (this.state === "waiting") problem.textContent = words.waiting;
    if (this.state === "failed") {
      problem.textContent = this.problem();
      problem.title = this.detail;
    }
    if (this.state !== "answered") return;
    if (!this.picture) problem.textContent = words.noPreview;
    this.part(".body").hidden = false;
    this.part(".pictures").hidden = !this.picture;
    this.part(".seen").setAttribute("aria-label", words.plain(this.name));
    const [best] = this.result.classes;
    this.part(".best-name").textContent = best.class_name;
    this.part(".best-prob").textContent = percent(best.prob);
    this.part(".classes").replaceChildren(...this.result.classes.map(bar));
    this.part(".time").textContent =
      words.time(number(this.milliseconds, 1)) + (this.result.attention ? "" : ` · ${words.noAttention}`);
    const overlay = this.result.attention && this.picture;
    this.part(".attention").hidden = this.part(".looks").hidden = !overlay;
    if (overlay) this.showOverlay();
  }

  showOverlay() {
    const { maps, class_token: own } = this.result.attention;
    const [layer, head, opacity] = ["layer", "head", "opacity"].map((name) => Number(this.part(`.${name}`).value));
    const heads = maps[layer - 1];
    const map = chosenMap(heads, head);
    const peak = strongest(map);
    const canvas = this.part(".overlay");
    draw(canvas, this.picture, map, opacity / 100);
    const headName = head ? words.headOf(head, heads.length) : words.mean;
    const layerName = words.layerOf(layer, maps.length);
    this.tell("layer", layerName);
    this.tell("head", headName);
    this.tell("opacity", `${opacity}%`);
    const shares = own[layer - 1];
    const share = head ? shares[head - 1] : shares.reduce((sum, value) => sum + value, 0) / shares.length;
    this.part(".own").textContent = words.own(percent(share));
    this.part(".high").textContent = percent(peak.value);
    canvas.setAttribute("aria-label", words.canvas(this.name, layer, headName, peak.row + 1, peak.column + 1));
  }

  tell(name, text) {
    this.part(`.${name}-out`).textContent = text;
    this.part(`.${name}`).setAttribute("aria-valuetext", text);
  }
}

// A class: its name, its probability, and a bar as long as that.
function bar({ class_name: name, prob }) {
  const item = document.createElement("li");
  const [label, value, track, fill] = ["span", "span", "div", "div"].map((tag) => document.createElement(tag));
  label.className = "class-name";
  label.textContent = name;
  value.className = "prob";
  value.textContent = percent(prob);
  track.className = "track";
  track.setAttribute("aria-hidden", "true");
  fill.style.width = `${100 * prob}%`;
  track.append(fill);
  item.append(label, value, track);
  return item;
}

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

// Sends one image. A full queue is no failure yet: the service says when to come again.
async function post(file) {
  const form = new FormData();
  form.append("images", file, file.name || "image");
  if (model.attention) form.append("attention", "true");
  const token = find("#token").value;
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  for (let attempt = 1; ; attempt++) {
    const response = await fetch("predict", { method: "POST", body: form, headers });
    if (response.status !== 503 || attempt === ATTEMPTS) return response;
    await sleep(Number(response.headers.get("Retry-After") || 1) * attempt);
  }
}

async function classify(card) {
  const { file, name } = card;
  if (file.type && !file.type.startsWith("image/")) return card.fail(() => words.notImage(name));
  if (file.size + BYTES_OF_A_FORM > model.max_upload_bytes) {
    return card.fail(() => words.tooLarge(name, number(model.max_upload_bytes / 1e6, 0)));
  }
  let response, answer;
  try {
    response = await post(file);
    answer = await response.json();
  } catch {
    return card.fail(() => words.unreachable);
  }
  const reasons = {
    401: () => words.unauthorized,
    413: () => words.tooLarge(name, number(model.max_upload_bytes / 1e6, 0)),
    422: () => words.unreadable(name),
    503: () => words.busy,
    504: () => words.slow,
  };
  if (!response.ok) return card.fail(reasons[response.status] || (() => words.failed), answer.detail);
  await card.succeed(answer.results[0], answer.time_ms);
}

async function take(files) {
  if (!files.length) return;
  const taken = Array.from(files, (file) => new Card(file));
  find("#clear").hidden = false;
  if (!model && !(await readModel())) return taken.forEach((card) => card.fail(() => words.unreachable));
  const waiting = [...taken];
  let done = 0;
  const work = async () => {
    for (let card; (card = waiting.shift()); ) {
      await classify(card);
      done += 1;
      if (taken.length > 1 && done < taken.length) say(() => words.working(done, taken.length));
    }
  };
  say(() => words.working(0, taken.length));
  await Promise.all(Array.from({ length: AT_A_TIME }, work));
  const failed = taken.filter((card) => card.state === "failed").length;
  const [card] = taken;
  if (taken.length > 1) say(() => words.done(taken.length, failed));
  else if (failed) say(() => card.problem());
  else say(() => words.found(card.name, card.result.classes[0].class_name, percent(card.result.classes[0].prob)));
}

async function readModel() {
  try {
    model = await (await fetch("model")).json();
  } catch {
    say(() => words.unreachable);
    return false;
  }
  find("#token-row").hidden = !model.token;
  setLanguage(language);
  return true;
}

function listen() {
  for (const input of [find("#files"), find("#photo")]) {
    input.addEventListener("change", () => {
      take([...input.files]);
      input.value = ""; // so that the same file can be chosen again
    });
  }
  const drop = find("#drop");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
  find("#token-row").addEventListener("submit", (event) => event.preventDefault());
  find("#language").addEventListener("click", () => {
    setLanguage(words.otherCode);
    localStorage.setItem("language", language);
  });
  find("#clear").addEventListener("click", () => {
    cards.length = 0;
    results.replaceChildren();
    find("#clear").hidden = true;
    say(() => "");
    find("#files").focus();
  });
}

listen();
setLanguage(language);
readModel();
