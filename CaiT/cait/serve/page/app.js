// The page: takes images, has the service classify them, and shows what it says.

import { listenAbout, offerSamples, showAbout } from "./about.js";
import { Card } from "./card.js";
import { percent, preferredLanguage, translate, useLanguage, words } from "./language.js";
import { ask, classify, download } from "./service.js";

const AT_A_TIME = 4; // requests

const find = (selector) => document.querySelector(selector);
let cards = []; // the newest images first, those chosen together in their order
let model = null;
let status = () => ""; // sentences, in whichever language
let trouble = null;

// The status line. What a card shows already is only for those who listen.
function say(sentence, shown = true) {
  status = sentence;
  find("#status").classList.toggle("spoken", !shown);
  find("#status").textContent = sentence();
}

// What keeps the service from answering, once for all images that wait for it.
function showTrouble(sentence, again = true) {
  trouble = sentence;
  find("#trouble").hidden = !sentence;
  find("#again").hidden = !again;
  find("#reason").textContent = sentence ? sentence() : "";
}

function speak(code) {
  useLanguage(code);
  translate(document);
  find("#language").textContent = words.other;
  find("#language").lang = words.otherCode;
  find("#status").textContent = status();
  find("#reason").textContent = trouble ? trouble() : "";
  cards.forEach((card) => card.show());
  if (!model) return;
  find("#model").textContent = words.subtitle(model.model, model.class_names.length);
  document.title = `CaiT · ${model.model}`;
  showAbout(model);
}

async function readModel() {
  const answer = await ask("model");
  if (!answer?.class_names) return showTrouble(() => words.unreachable);
  model = answer;
  find("#token-row").hidden = !model.token;
  find("#classes").hidden = find("#about").hidden = find("#phone").hidden = false;
  offerSamples(model, takeSample);
  showEmpty();
  speak(words.code);
}

// What stands where there are no cards, and where there are.
function showEmpty() {
  find("#samples").hidden = cards.length > 0 || !model?.samples.length;
  find("#clear").hidden = cards.length === 0;
}

// Has cards classified. Those that the service cannot answer now are kept.
async function work(asked) {
  showTrouble(null);
  say(() => "");
  asked.forEach((card) => card.keep("waiting"));
  const [waiting, token] = [[...asked], find("#token").value];
  let stopped = null;
  const next = async () => {
    for (let card; (card = waiting.shift()); ) {
      if (asked.length > 1) say(() => words.working(ended(asked), asked.length));
      const { result, milliseconds, ...problem } = await classify(card.file, card.name, model, token);
      if (result) await card.succeed(result, milliseconds, model);
      else if (problem.fault === "image") card.fail(problem);
      else {
        card.keep("kept");
        stopped = problem;
        if (problem.forAll) waiting.splice(0).forEach((other) => other.keep("kept"));
      }
    }
  };
  await Promise.all(Array.from({ length: AT_A_TIME }, next));
  const still = asked.filter((card) => cards.includes(card)); // the others were cleared meanwhile
  report(still);
  if (stopped && still.length) showTrouble(stopped.sentence, stopped.fault !== "token");
}

const ended = (asked) => asked.filter((card) => card.state === "answered" || card.state === "failed").length;

function report(asked) {
  const failed = asked.filter((card) => card.state === "failed").length;
  const [card] = asked;
  if (!ended(asked)) say(() => "");
  else if (asked.length > 1) say(() => words.done(ended(asked), failed));
  else if (failed) say(card.sentence, false);
  else {
    const [best] = card.result.classes;
    say(() => words.found(card.name, best.class_name, percent(best.prob)), false);
  }
}

async function take(files) {
  if (!files.length) return;
  const taken = Array.from(files, (file) => new Card(file));
  if (!cards.length) find("#classes").open = false;
  cards = [...taken, ...cards];
  find("#results").prepend(...taken.map((card) => card.element));
  if (find("#samples").contains(document.activeElement)) taken[0].element.focus();
  showEmpty();
  if (!model) await readModel();
  if (model) await work(taken);
  else taken.forEach((card) => card.keep("kept"));
}

async function takeSample(address, name) {
  const file = await download(address, name);
  if (file) await take([file]);
  else showTrouble(() => words.unreachable);
}

// Sends what was kept.
async function goOn() {
  if (!model) await readModel();
  const kept = cards.filter((card) => card.state === "kept");
  if (model && kept.length) await work(kept);
  else if (model) showTrouble(null);
}

function listenToFiles() {
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
}

function listen() {
  listenToFiles();
  listenAbout(() => model);
  find("#again").addEventListener("click", goOn);
  find("#token-row").addEventListener("submit", (event) => {
    event.preventDefault();
    goOn();
  });
  find("#language").addEventListener("click", () => {
    localStorage.setItem("language", words.otherCode);
    speak(words.otherCode);
  });
  find("#clear").addEventListener("click", () => {
    cards.forEach((card) => card.remove());
    cards = [];
    find("#classes").open = true;
    showEmpty();
    showTrouble(null);
    say(() => "");
    find("#files").focus();
  });
}

listen();
speak(preferredLanguage());
find("main").hidden = find("footer").hidden = find("#language").hidden = false;
readModel();
