import asyncio
async def serve(management, config):
    await asyncio.Event().wait()
