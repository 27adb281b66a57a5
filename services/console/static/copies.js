"use strict";
// A button copies the text of the element that it names. Pages that are not https have no clipboard of their own: there
// the text is selected, and copied as if by hand.
document.documentElement.classList.add("can-copy");
document.addEventListener("click", async event => {
  const button = event.target.closest("[data-copies]");
  if (!button) return;
  const from = document.getElementById(button.dataset.copies);
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(from.textContent);
  } else {
    getSelection().selectAllChildren(from);
    document.execCommand("copy");
  }
  button.textContent = "Copied";
});
