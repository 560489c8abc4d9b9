// Buttons to choose one of a few things with. Where there is only one thing, there are none.

// Fills a fieldset of the class "choice". The labels are texts, or { word } for one that is translated; `chosen` is
// the index of the one that is chosen first, and `listen` is called after every choice.
export function fillChoice(fieldset, name, labels, chosen, listen) {
  fieldset.hidden = labels.length < 2;
  const options = labels.map((text, index) => {
    const [label, input, shown] = ["label", "input", "span"].map((tag) => document.createElement(tag));
    Object.assign(input, { type: "radio", name, value: index, defaultChecked: index === chosen });
    input.addEventListener("change", listen);
    if (text.word) shown.dataset.word = text.word;
    else shown.textContent = text;
    label.append(input, shown);
    return label;
  });
  fieldset.querySelector(".options").replaceChildren(...options);
}

// The index of the one that is chosen.
export const choiceOf = (fieldset) => Number(fieldset.querySelector("input:checked").value);
