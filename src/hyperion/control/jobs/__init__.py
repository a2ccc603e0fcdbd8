"""Work for later: jobs and idempotent calls, callbacks, batch jobs, streams of brokers."""
