"""The event loop of a kernel: one, from its start to its end, so that what one cell begins another can await."""

import asyncio
import threading


class Loop:
    def __init__(self):
        self.main = threading.get_ident()
        self.loop = None
        create_task = asyncio.create_task

        def create(coroutine, **options):
            """In a cell without an await, too: the task goes on when a cell awaits."""
            if self.loop is None or threading.get_ident() != self.main or asyncio._get_running_loop() is not None:
                return create_task(coroutine, **options)
            return self.loop.create_task(coroutine, **options)

        asyncio.create_task = asyncio.tasks.create_task = create

    def settle(self):
        """Makes it the loop of this thread again, for code that asks for one; asyncio.run leaves none behind."""
        if self.loop is None or self.loop.is_closed():
            self.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self.loop)

    def run(self, coroutine):
        """Runs it to its end. An interrupt, or an exit, cancels it and goes on to the caller."""
        task = self.loop.create_task(coroutine)
        try:
            return self.loop.run_until_complete(task)
        except (KeyboardInterrupt, SystemExit):
            task.cancel()
            self.loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
            raise
