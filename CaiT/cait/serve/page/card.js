// One image and its answer.

import { choiceOf, fillChoice } from "./choice.js";
import { number, percent, translate, words } from "./language.js";
import { chosenMap, drawMap, drawPixels, strongest } from "./overlay.js";

const SMALL = 128; // pixels: images below this stay pixels when they are enlarged
let made = 0;

export class Card {
  // `state` is "waiting", "answered", "failed" (the image is at fault) or "kept" (it can be sent again).
  constructor(file) {
    this.file = file;
    this.number = ++made;
    this.name = file.name || "image";
    this.state = "waiting";
    this.element = document.querySelector("#card").content.cloneNode(true).firstElementChild;
    this.part(".name").textContent = this.name;
    this.part(".opacity").addEventListener("input", () => this.showOverlay());
    this.showPhoto();
    this.show();
  }

  part(selector) {
    return this.element.querySelector(selector);
  }

  showPhoto() {
    const photo = this.part(".photo");
    photo.addEventListener("error", () => (this.part(".chosen").hidden = true)); // TIFF, which browsers do not show
    photo.addEventListener("load", () => photo.classList.toggle("small", photo.naturalWidth < SMALL));
    photo.src = URL.createObjectURL(this.file);
  }

  remove() {
    URL.revokeObjectURL(this.part(".photo").src);
    this.element.remove();
  }

  keep(state) {
    this.state = state;
    this.show();
  }

  fail({ sentence, detail }) {
    this.sentence = sentence;
    this.detail = detail;
    this.keep("failed");
  }

  async succeed(result, milliseconds, model) {
    this.model = model;
    this.result = result;
    this.milliseconds = milliseconds;
    this.pixels = await drawPixels(this.part(".seen"), result.seen);
    if (result.attention) {
      const { maps } = result.attention;
      const [layers, heads] = [maps, maps[0]].map((list) => list.map((_, index) => String(index + 1)));
      if (heads.length > 1) heads.unshift({ word: "mean" });
      const change = () => this.showOverlay();
      fillChoice(this.part(".layer"), `layer ${this.number}`, layers, layers.length - 1, change);
      fillChoice(this.part(".head"), `head ${this.number}`, heads, 0, change);
    }
    this.keep("answered");
  }

  show() {
    translate(this.element);
    this.element.dataset.state = this.state;
    this.part(".problem").hidden = this.state === "answered";
    if (this.state === "waiting") this.part(".problem").textContent = words.waiting;
    if (this.state === "kept") this.part(".problem").textContent = words.kept;
    if (this.state === "failed") {
      this.part(".problem").textContent = this.sentence();
      this.part(".problem").title = this.detail;
    }
    this.part(".body").hidden = this.state !== "answered";
    if (this.state === "answered") this.showAnswer();
  }

  showAnswer() {
    const { classes, attention } = this.result;
    const [height, width] = this.model.image_size;
    this.part(".photo").style.imageOrientation = this.model.exif ? "from-image" : "none";
    this.part(".photo").alt = words.photoOf(this.name);
    this.part(".seen").setAttribute("aria-label", words.plain(this.name));
    this.part(".size").textContent = words.size(width, height, this.model.channels);
    this.part(".classes").replaceChildren(...classes.map(bar));
    this.part(".time").textContent =
      words.time(number(this.milliseconds, 1)) + (attention ? "" : ` · ${words.noAttention}`);
    this.part(".attention").hidden = this.part(".looks").hidden = !attention;
    if (attention) this.showOverlay();
  }

  showOverlay() {
    const { maps, class_token: own } = this.result.attention;
    const layer = choiceOf(this.part(".layer"));
    const heads = maps[layer];
    const head = heads.length > 1 ? choiceOf(this.part(".head")) : 1; // 0: their mean
    const opacity = Number(this.part(".opacity").value);
    const map = chosenMap(heads, head);
    const peak = strongest(map);
    const shares = own[layer];
    const share = head ? shares[head - 1] : shares.reduce((sum, value) => sum + value, 0) / shares.length;
    const canvas = this.part(".overlay");
    drawMap(canvas, this.pixels, map, opacity / 100);
    const headName = head ? words.headOf(head, heads.length) : words.mean;
    canvas.setAttribute("aria-label", words.canvas(this.name, layer + 1, headName, peak.row + 1, peak.column + 1));
    this.part(".opacity-out").textContent = `${opacity}%`;
    this.part(".opacity").setAttribute("aria-valuetext", `${opacity}%`);
    this.part(".own").textContent = words.own(percent(share));
    this.part(".high").textContent = percent(peak.value);
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
