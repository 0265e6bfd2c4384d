import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { defineConfig, type Plugin } from 'vite';

/** Packed once, here, and not for every client. */
function packed(): Plugin {
  return {
    name: 'packed',
    writeBundle({ dir = '' }) {
      const folder = join(dir, 'assets');
      for (const name of readdirSync(folder).filter((file) => /\.(js|css)$/.test(file))) {
        const bytes = readFileSync(join(folder, name));
        writeFileSync(join(folder, `${name}.br`), brotliCompressSync(bytes));
        writeFileSync(join(folder, `${name}.gz`), gzipSync(bytes, { level: 9 }));
      }
    },
  };
}

export default defineConfig({
  // Below whatever path we are served: the document says which.
  base: './',
  resolve: { conditions: ['source', 'browser', 'module', 'import', 'default'] },
  plugins: [packed()],
  build: {
    target: 'es2022',
    modulePreload: false,
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    // `use client` is for servers that draw React.
    rolldownOptions: { checks: { moduleLevelDirective: false } },
  },
});
