// The one dialog: asks for a line of text, or for a yes. Esc and Cancel give null.

import { find } from "./dom.js";

export function ask({ title, text = "", label = null, value = "", ok, type = "text", optional = false }) {
  const dialog = find("dialog");
  const input = find("dialog-input");
  find("dialog-title").textContent = title;
  find("dialog-text").textContent = text;
  find("dialog-text").hidden = !text;
  find("dialog-label").hidden = label === null;
  find("dialog-name").textContent = label ?? "";
  find("dialog-ok").textContent = ok;
  input.type = type;
  input.value = value;
  input.required = label !== null && !optional;
  input.maxLength = 256;
  dialog.returnValue = "";
  dialog.showModal();
  (label === null ? find("dialog-ok") : input).focus();
  if (label !== null) input.select();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const given = dialog.returnValue === "ok" ? input.value.trim() : null;
      input.value = ""; // a key is not left lying in the page
      resolve(given);
    }, { once: true });
    // Enter presses the first button of a form, which is Cancel.
    input.onkeydown = (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault();
      find("dialog-ok").click();
    };
  });
}
