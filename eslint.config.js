const browser = [
  "AbortController", "Blob", "CSS", "DecompressionStream", "DOMException", "Event", "HTMLElement", "IntersectionObserver", "KeyboardEvent", "MutationObserver", "Node",
  "OffscreenCanvas", "PointerEvent", "ResizeObserver", "Response", "TextDecoder", "TextEncoder", "URL", "URLSearchParams", "XMLSerializer", "atob",
  "btoa", "cancelAnimationFrame", "clearTimeout", "console", "createImageBitmap", "document", "fetch", "getComputedStyle", "history",
  "Image", "ImageData", "location", "matchMedia", "navigator", "performance", "queueMicrotask", "requestAnimationFrame",
  "setTimeout", "window", "process",
];

export default [
  {
    files: ["**/*.js"],
    languageOptions: {
      ecmaVersion: 2022,
      sourceType: "module",
      globals: Object.fromEntries(browser.map((name) => [name, "readonly"])),
    },
    rules: {
      "no-undef": "error",
      "no-unused-vars": ["error", { argsIgnorePattern: "^_" }],
      "prefer-const": "error",
      "no-var": "error",
      eqeqeq: "error",
      "no-eval": "error",
      "no-implied-eval": "error",
      "no-new-func": "error",
      "no-restricted-properties": [
        "error",
        ...["innerHTML", "outerHTML", "insertAdjacentHTML"].map((property) => ({
          property,
          message: "Text is data: use textContent.",
        })),
      ],
      "max-lines": ["error", 400],
      "max-lines-per-function": ["error", { max: 90, skipComments: true, skipBlankLines: true }],
    },
  },
];
