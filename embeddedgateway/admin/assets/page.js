// What the pages can do better with a script. Without it they work as well.
(() => {
  'use strict'
  const every = 5000 // milliseconds between two looks at the numbers

  // Copying
  if (navigator.clipboard) {
    for (const button of document.querySelectorAll('button.copy')) {
      button.hidden = false
      button.addEventListener('click', async () => {
        const said = button.textContent
        try {
          await navigator.clipboard.writeText(button.dataset.copy)
          button.textContent = 'Copied'
        } catch {
          button.textContent = 'Select it and copy it yourself'
        }
        setTimeout(() => { button.textContent = said }, 2000)
      })
    }
  }

  // Live numbers: the server says what stands in which element.
  const live = document.getElementById('live')
  if (!live) return
  let on = true
  let ended = false
  let timer
  const show = () => {
    live.setAttribute('aria-pressed', String(on))
    live.textContent = on ? 'Live: pause' : 'Paused: go on'
  }
  const put = (what, how) => {
    for (const [id, value] of Object.entries(what)) {
      const element = document.getElementById(id)
      if (element) how(element, value)
    }
  }
  const look = async () => {
    clearTimeout(timer)
    if (!on || ended || document.hidden) return
    try {
      const answer = await fetch('/live', { headers: { Accept: 'application/json' } })
      if (answer.status === 401) {
        ended = true
        live.textContent = 'The session has ended: sign in again'
        return
      }
      if (answer.ok) {
        const numbers = await answer.json()
        put(numbers.text, (element, text) => { if (element.textContent !== text) element.textContent = text })
        put(numbers.path, (element, path) => element.setAttribute('d', path))
        document.getElementById('at').textContent = numbers.at
        show()
      } else {
        live.textContent = 'Live: the gateway does not answer'
      }
    } catch {
      live.textContent = 'Live: the gateway does not answer'
    }
    timer = setTimeout(look, every)
  }
  live.hidden = false
  live.addEventListener('click', () => {
    if (ended) return location.reload()
    on = !on
    show()
    look()
  })
  document.addEventListener('visibilitychange', look)
  show()
  timer = setTimeout(look, every)
})()
