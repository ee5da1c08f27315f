
// The engine loads CanvasKit as a module; the npm package is a plain script. Its own wasm lies beside it, whatever the
// engine's options say.
export default (options) =>
  CanvasKitInit({ ...options, locateFile: (file) => new URL(file, import.meta.url).href });
