"""A site that holds no GPU: an agent without torch, and a Kubernetes Job with the GPU for each task.

The agent (`services.client agent`) is the site: it has the certificate, the ledger, the vault and the site's key, and
sends. A Job (`services.client task --work FOLDER`) has the data, the base model and the GPU, and no network. Between
them is one folder for each task, on a volume that both mount at the same path (`--work`, DEERFIELD_WORK). In order:

    agent  `request.json`            the task, the run, the policy as the agent has read it, the secret that splits data
           `start.safetensors`       the start tensors, under the digest that `request.json` has
           creates the Job
    Job    `started`                 its container runs
           `checked`                 the model is loaded and the clipping engine checked; no record was read
    agent  reserves: the charge is on the ledger's disk
           `reservation.json`        the spend, and the ledger entry that it was charged by
    Job    `progress.json`           steps done, again and again
           `release.safetensors`     what the strategy releases: noised. Nothing else of the training is ever written
           `released.json`           its digest, and the metrics that the policy lets out
    agent  commits, deletes the Job and the folder, sends
    Job    `fault.json`, at any time why there will be no release; its exit code is 1

Every file is written aside, fsynced and renamed, with mode 0600. Whichever side finds the folder gone stops.

What the agent needs of `--job FILE` (DEERFIELD_JOB, default /etc/deerfield/job/job.yaml), one `batch/v1` Job:
- `metadata.namespace`; `metadata.labels` are kept (`app.kubernetes.io/instance` is part of how an agent finds its own);
- one container, the first, whose command and args are those of `python -m services.client`; the agent appends
  `task --work FOLDER`;
- in it the data, the base models and `--work` at the paths that they have in the agent (the policy names the first two;
  the agent needs the data too, to see that they are those that were registered), and no state, certificate or policy;
  it runs as the agent's user;
- `--work` (DEERFIELD_WORK) is this site's alone: what an agent that starts finds there is its own;
- `spec.activeDeadlineSeconds`, `ttlSecondsAfterFinished` and everything about the pod are the chart's. The agent takes
  the run's own deadline where that is shorter.
The agent sets: `metadata.name` (`deerfield-SITE-RUN-rN-pN-HASH`, at most 63 characters, no two alike), the labels
`deerfield.io/site`, `deerfield.io/run`, `deerfield.io/round`, `deerfield.io/phase` of Job and pod, `backoffLimit: 0`,
`parallelism: 1`, `completions: 1`, `restartPolicy: Never`, `automountServiceAccountToken: false`.
Its Role: jobs (batch) create, get, list, delete; pods list. It finds the API server as every pod does, or by
KUBECONFIG. `--job-start-s` (DEERFIELD_JOB_START_S, 600): so long a Job may wait for a machine and its image.
"""
