import { createApp } from 'vue'
import App from './App.vue'
import './element'
import { i18n } from './i18n'
import './styles.css'
import './list.css'
import './theme'

createApp(App).use(i18n).mount('#app')
