// Ends the service worker that an earlier version of the app registered: it would download the client a second time.
self.addEventListener("install", () => self.skipWaiting());

self.addEventListener("activate", (event) => event.waitUntil(retire()));

async function retire() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith("flutter-")).map((name) => caches.delete(name)));
  await self.registration.unregister();
}
