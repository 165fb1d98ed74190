"""The one event loop of a kernel, from its start to its end, so that one cell can await what another has begun."""

import asyncio
import threading


class Loop:
    def __init__(self):
        self.main = threading.get_ident()
        self.loop = None
        create_task = asyncio.create_task

        def create(coroutine, **options):
            """Works in a cell without an await, too. The task runs when a cell awaits."""
            if self.loop is None or threading.get_ident() != self.main or asyncio._get_running_loop() is not None:
                return create_task(coroutine, **options)
            return self.loop.create_task(coroutine, **options)

        asyncio.create_task = asyncio.tasks.create_task = create

    def settle(self):
        """Sets the thread's loop again: code may ask for it, and asyncio.run leaves the thread without one."""
        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)

    def run(self, coroutine):
        """Runs a coroutine to its end. KeyboardInterrupt and SystemExit cancel it and are raised again."""
        task = self.loop.create_task(coroutine)
        try:
            return self.loop.run_until_complete(task)
        except (KeyboardInterrupt, SystemExit):
            task.cancel()
            self.loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
            raise
