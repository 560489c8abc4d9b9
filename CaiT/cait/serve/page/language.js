// The language that the page speaks, and what is written in its way.

import { WORDS } from "./words.js";

export let words; // of the language; they change for all who import them
let language;

export const preferredLanguage = () =>
  (localStorage.getItem("language") || navigator.language || "en").startsWith("zh") ? "zh" : "en";

export function useLanguage(code) {
  language = code;
  words = WORDS[code];
  document.documentElement.lang = code === "zh" ? "zh-CN" : "en";
}

// Writes the words that those within an element name, as their text or as their label.
export function translate(within) {
  for (const element of within.querySelectorAll("[data-word]")) element.textContent = words[element.dataset.word];
  for (const element of within.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", words[element.dataset.label]);
  }
}

const written = (value, least, most, options = {}) =>
  new Intl.NumberFormat(language, { minimumFractionDigits: least, maximumFractionDigits: most, ...options }).format(value);

// With two digits after the point, or as many as are needed up to one where `exact` is true.
export const percent = (value, exact = false) => written(value, exact ? 0 : 2, exact ? 1 : 2, { style: "percent" });

export const number = (value, digits = 0) => written(value, digits, digits);
