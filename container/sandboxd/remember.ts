/** Sets a value, as the newest one of the map. Forgets the oldest one if there are more than `most`. */
export function remember<K, V>(map: Map<K, V>, key: K, value: V, most: number): void {
  map.delete(key);
  map.set(key, value);
  if (map.size <= most) return;
  const [oldest = key] = map.keys();
  map.delete(oldest);
}
