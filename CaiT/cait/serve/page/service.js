// Asks the service: what it is, and what it says of an image.

import { number, words } from "./language.js";

const ATTEMPTS = 6; // at a full queue
const BYTES_OF_A_FORM = 2000; // beside the image

const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

// What the service answers at an address in JSON, whatever its status; null where it cannot be reached.
export async function ask(address) {
  try {
    return await (await fetch(address)).json();
  } catch {
    return null;
  }
}

// The file at an address; null where there is none.
export async function download(address, name) {
  const response = await fetch(address).catch(() => null);
  return response?.ok ? new File([await response.blob()], name, { type: response.headers.get("Content-Type") }) : null;
}

// Sends one image. A full queue is no failure yet: the service says when to come again.
async function post(file, model, token) {
  const form = new FormData();
  form.append("images", file, file.name || "image");
  form.append("seen", "true");
  if (model.attention) form.append("attention", "true");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  for (let attempt = 1; ; attempt++) {
    const response = await fetch("predict", { method: "POST", body: form, headers });
    if (response.status !== 503 || attempt === ATTEMPTS) return response;
    await sleep(Number(response.headers.get("Retry-After") || 1) * attempt);
  }
}

// The image is at fault: another attempt would end in the same way.
const ofImage = (sentence, detail = "") => ({ fault: "image", sentence, detail });
// The service or the token is: the image can be sent again. Where `forAll` is true, no other would fare better now.
const ofService = (sentence, forAll = true) => ({ fault: "service", sentence, forAll });
const ofToken = (sentence) => ({ fault: "token", sentence, forAll: true });

// { result, milliseconds }, or { fault, sentence, detail, forAll } where `sentence()` says why there is no result.
export async function classify(file, name, model, token) {
  const tooLarge = () => words.tooLarge(name, number(model.max_upload_bytes / 1e6));
  if (file.type && !file.type.startsWith("image/")) return ofImage(() => words.notImage(name));
  if (file.size + BYTES_OF_A_FORM > model.max_upload_bytes) return ofImage(tooLarge);
  let response, answer;
  try {
    response = await post(file, model, token);
    answer = await response.json();
  } catch {
    return ofService(() => words.unreachable);
  }
  if (response.ok) return { result: answer.results[0], milliseconds: answer.time_ms };
  switch (response.status) {
    case 413: return ofImage(tooLarge, answer.detail);
    case 422: return ofImage(() => words.unreadable(name), answer.detail);
    case 401: return ofToken(() => words.unauthorized);
    case 503: return ofService(() => words.busy);
    case 504: return ofService(() => words.slow, false);
    default: return ofService(() => words.failed, false);
  }
}
