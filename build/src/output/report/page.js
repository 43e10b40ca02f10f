"use strict";
// What every page needs: the button that copies the command, and a word where a table is wider than the screen.
(() => {
  const command = document.getElementById("command"), button = document.getElementById("copy");
  const copied = document.getElementById("copied");
  button.hidden = false;
  button.addEventListener("click", async () => {
    getSelection().selectAllChildren(command);
    try {
      await navigator.clipboard.writeText(command.textContent);
      copied.textContent = "Copied";
    } catch {
      // Browsers that keep pages from disk off the clipboard copy the selection.
      copied.textContent = document.execCommand("copy") ? "Copied" : "Selected: copy it with the keyboard";
    }
  });

  const wide = new ResizeObserver((entries) => {
    for (const { target } of entries) target.previousElementSibling.hidden = target.scrollWidth <= target.clientWidth;
  });
  document.querySelectorAll(".wide").forEach((element) => wide.observe(element));

  // With it, Safari on phones takes a touch of a chart for hovering.
  document.addEventListener("touchstart", () => {}, { passive: true });
})();
