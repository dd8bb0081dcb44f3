import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vitest/config'

// `npm run dev` serves the page from source and asks a running gateway for everything else.
const gateway = process.env['CUSTOS_URL'] ?? 'http://127.0.0.1:8080'

export default defineConfig({
  plugins: [vue()],
  base: './',
  define: {
    __VUE_OPTIONS_API__: true,
    __VUE_I18N_FULL_INSTALL__: false,
    __VUE_I18N_LEGACY_API__: false,
    __INTLIFY_PROD_DEVTOOLS__: false,
  },
  build: {
    target: 'es2022',
    // No bytes of the page may come from anywhere but a file: the content security policy says 'self'.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // Element Plus is one file, read once and then from the browser's cache.
    chunkSizeWarningLimit: 700,
    rolldownOptions: {
      output: {
        codeSplitting: {
          groups: [{ name: 'vendor', test: /node_modules/ }],
        },
      },
    },
  },
  server: {
    proxy: {
      '/api': gateway,
      '/media': { target: gateway, ws: true },
    },
  },
  test: { include: ['src/**/*.test.ts'] },
})
