// A code read from a photo: the phone's camera takes it, and it never leaves the browser.
"use strict";

(function () {
  // Of the photo's longer side, in px: fine bars need many of them, a blurred photo reads better with few.
  const SIDES = [1600, 900, 500];

  const formats = ["QR_CODE", "DATA_MATRIX", "CODE_128", "CODE_39", "EAN_13"];
  const hints = new Map([
    [ZXing.DecodeHintType.TRY_HARDER, true],
    [ZXing.DecodeHintType.POSSIBLE_FORMATS, formats.map((name) => ZXing.BarcodeFormat[name])],
  ]);

  /** The photo's brightness, a byte a pixel, at most `side` px long. */
  function shrink(photo, side) {
    const scale = Math.min(1, side / Math.max(photo.width, photo.height));
    const width = Math.round(photo.width * scale);
    const height = Math.round(photo.height * scale);
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, width, height);
    pen.drawImage(photo, 0, 0, width, height);
    const { data } = pen.getImageData(0, 0, width, height);
    const grey = new Uint8ClampedArray(width * height);
    for (let i = 0; i < grey.length; i += 1) {
      grey[i] = (data[4 * i] + 2 * data[4 * i + 1] + data[4 * i + 2]) / 4;
    }
    return new ZXing.RGBLuminanceSource(grey, width, height);
  }

  /** What the code means: a label may hold the address of this very page with the code in it. */
  function unwrap(text) {
    try {
      return new URL(text).searchParams.get("code") || text;
    } catch {
      return text;
    }
  }

  /** The text of the code on a photo; "" when none can be read. */
  async function read(file) {
    let photo;
    try {
      photo = await createImageBitmap(file);
    } catch {
      return "";
    }
    for (const side of SIDES) {
      try {
        const bitmap = new ZXing.BinaryBitmap(new ZXing.HybridBinarizer(shrink(photo, side)));
        return new ZXing.MultiFormatReader().decode(bitmap, hints).getText().trim();
      } catch {
        // None at this size.
      }
    }
    return "";
  }

  document.querySelectorAll("[data-scans]").forEach((box) => {
    const field = document.getElementById(box.dataset.scans);
    const button = box.querySelector("button");
    const photo = box.querySelector("input[type=file]");
    const told = box.querySelector("[role=status]");
    box.hidden = false;
    button.addEventListener("click", () => photo.click());
    photo.addEventListener("change", async () => {
      if (photo.files.length === 0) return;
      told.textContent = told.dataset.reading;
      // So that the word is seen before the reading holds everything up.
      await new Promise((resolve) => { setTimeout(resolve, 50); });
      const text = unwrap(await read(photo.files[0]));
      photo.value = "";
      told.textContent = text === "" ? told.dataset.none : text.length > field.maxLength ? told.dataset.long : "";
      if (told.textContent !== "") return;
      field.value = text;
      field.dispatchEvent(new Event("input", { bubbles: true }));
      field.focus();
    });
  });
})();
