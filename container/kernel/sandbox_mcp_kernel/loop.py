"""The kernel's only event loop, so that a cell can await a task of an earlier cell."""

import asyncio

from .own import threading


class Loop:
    def __init__(self):
        self.main = threading.get_ident()
        self.loop = None
        create_task = asyncio.create_task

        def create(coroutine, **options):
            """Replaces asyncio.create_task. If no loop is running, the task starts when a later cell awaits something."""
            if self.loop is None or threading.get_ident() != self.main or asyncio._get_running_loop() is not None:
                return create_task(coroutine, **options)
            return self.loop.create_task(coroutine, **options)

        asyncio.create_task = asyncio.tasks.create_task = create

    def restore(self):
        """Sets the thread's loop again, because asyncio.run removes it."""
        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)

    def run(self, coroutine):
        """Runs a coroutine to its end. KeyboardInterrupt and SystemExit cancel the coroutine, and are raised again."""
        task = self.loop.create_task(coroutine)
        try:
            return self.loop.run_until_complete(task)
        except (KeyboardInterrupt, SystemExit):
            task.cancel()
            self.loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
            raise
