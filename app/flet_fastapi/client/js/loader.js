
// Appended to Flutter's loader: everything the engine needs comes from the folder of this script, and no service
// worker is registered. Under the build's own path all of it is immutable; under the app's plain path it is revalidated.
(() => {
  const base = new URL(".", document.currentScript.src).href;
  const local = {
    assetBase: base,
    canvasKitBaseUrl: base + "canvaskit/",
    canvasKitVariant: "full",
    fontFallbackBaseUrl: base + "fallback_fonts/",
  };
  const loader = window._flutter.loader;
  const loadEntrypoint = loader.loadEntrypoint.bind(loader);
  const load = loader.load.bind(loader);

  const localized = (initializer) => ({
    autoStart: () => initializer.initializeEngine(local).then((runner) => runner.runApp()),
    initializeEngine: (config) => initializer.initializeEngine({ ...local, ...config }),
  });
  const localizedCallback = (callback) => callback && ((initializer) => callback(localized(initializer)));

  // A font that cannot be had must not be asked for again at every frame, which is what the engine does with an error:
  // offline, one character outside Roboto would keep a processor busy. An empty answer ends its search.
  const fetchNow = window.fetch.bind(window);
  const isFallbackFont = (url) =>
    typeof url === "string" && url.startsWith(local.fontFallbackBaseUrl) && !url.includes("/roboto/");
  const fetchFont = async (url, options) => {
    for (const seconds of [2, 8, 0]) {
      const answer = await fetchNow(url, options).catch(() => null);
      if (answer?.ok) return answer;
      if (answer) break;
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    }
    return new Response("");
  };
  window.fetch = (url, options) => (isFallbackFont(url) ? fetchFont(url, options) : fetchNow(url, options));

  loader.loadEntrypoint = async ({ serviceWorker, onEntrypointLoaded, ...settings } = {}) => {
    const initializer = await loadEntrypoint({
      entrypointUrl: base + "main.dart.js",
      ...settings,
      onEntrypointLoaded: localizedCallback(onEntrypointLoaded),
    });
    return initializer && localized(initializer);
  };

  loader.load = ({ serviceWorkerSettings, onEntrypointLoaded, config, ...settings } = {}) =>
    load({
      ...settings,
      config: { ...local, entryPointBaseUrl: base, ...config },
      onEntrypointLoaded: localizedCallback(onEntrypointLoaded),
    });
})();

// A browser that is told to keep nothing refuses access to its storage with an error, and the client would end there.
// It gets one that lives as long as the page.
(() => {
  const inMemory = () => {
    const kept = new Map();
    return {
      get length() { return kept.size; },
      key: (at) => [...kept.keys()][at] ?? null,
      getItem: (key) => kept.get(String(key)) ?? null,
      setItem: (key, value) => { kept.set(String(key), String(value)); },
      removeItem: (key) => { kept.delete(String(key)); },
      clear: () => kept.clear(),
    };
  };
  for (const name of ["sessionStorage", "localStorage"]) {
    try {
      window[name];
    } catch {
      Object.defineProperty(window, name, { value: inMemory() });
    }
  }
})();
