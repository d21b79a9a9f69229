# fish completion for cloister(1); printed by `cloister completion fish`

function __cloister_jobs
    cloister jobs --json --limit 200 --wait 1s 2>/dev/null |
        sed -n 's/^ *"id": *"[0-9a-f]*\([0-9a-f]\{8\}\)".*/\1/p'
end

function __cloister_models
    cloister models --json --wait 1s 2>/dev/null |
        sed -n 's/^ *"name": *"\([^"]*\)".*/\1/p'
end

complete -c cloister -f
complete -c cloister -l json -d 'Prints one JSON document, for programs'
complete -c cloister -l verbose -s v -d 'Says more on standard error: tokens, times, the seed'
complete -c cloister -l url -s u -x -d 'The coordinator, tcp://HOST:PORT or tls+tcp://HOST:PORT'
complete -c cloister -l tenant -x -d 'Whose quota and bill it is'
complete -c cloister -l wait -s w -x -d 'How long to keep trying while nobody answers or all is busy, such as 30s (10s, and 5m for a job that is being watched)'
complete -c cloister -l identity -s i -r -F -d 'Our key; made where it is missing (client.key beside client.cfg)'
complete -c cloister -l config -s c -r -F -d 'Read this instead of the user'\''s or the system'\''s client.cfg'
complete -c cloister -l check-config -d 'Reads the configuration, says what is wrong with it, and ends'
complete -c cloister -l print-config -d 'Prints a client.cfg with every key explained, and ends'
complete -c cloister -l help -s h -d 'This'
complete -c cloister -l version -s V -d 'Prints the version and git revision'

complete -c cloister -n __fish_use_subcommand -a submit -d 'submit a job and print its answer as it comes'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l system -x -d 'A system message before the prompt'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l file -s f -r -F -d 'The prompt is this file'\''s content; - is standard input'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l raw -d 'The prompt is continued as it is, without the model'\''s chat template'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l stop -x -d 'The answer ends before this text'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l answers -x -d 'N answers (1), each a job of its own, one after the other; the seed of answer i is --seed + i, from 0'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l detach -s d -d 'Prints the job'\''s id once it is accepted, and leaves'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l cancel-on-disconnect -d 'The job ends when nobody watches it any more'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l model -s m -x -a '(__cloister_models)' -d 'The model'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l seed -s s -x -d 'The same job with the same seed gives the same answer on any worker'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l class -x -a 'interactive standard batch' -d 'interactive, standard or batch: who goes first when there is not enough for all'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l priority -x -d 'Within the class; 9 goes first (5)'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l deadline -x -d 'The job expires when it is not done after this long, such as 30s or 2h'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l project -x -d 'Recorded with the job, for the bill'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l cost-center -x -d 'Recorded with the job, for the bill'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l max-tokens -s n -x -d 'The answer ends after N tokens (256)'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l temperature -s t -x -d '0 (the default) takes the likeliest token each time; 1 draws from the model'\''s own distribution'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l top-p -x -d 'Draws from the likeliest tokens that together reach P (1: off)'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l top-k -x -d 'Draws from the K likeliest tokens (0: off)'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l min-p -x -d 'Draws from tokens at least P times as likely as the likeliest (0: off)'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l typical-p -x -d 'Draws from the tokens whose surprise is nearest to the mean, as many as together reach P (1: off)'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l logit-bias -x -d 'Adds BIAS, -100 to 100, to the logit of the token ID'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l repetition-penalty -x -d 'Divides the logits of tokens that were there before (1: off)'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l presence-penalty -x -d 'Taken from the logits of tokens that were there before: -2 to 2 (0: off)'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l frequency-penalty -x -d 'The same, once for each time the token was there: -2 to 2 (0: off)'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l stop-token -x -d 'The answer ends with this token, which adds no text'
complete -c cloister -n '__fish_seen_subcommand_from submit' -l logprobs -x -d 'Answers in JSON have the logprob of each token, and of the N likeliest in its place (0 to 20)'

complete -c cloister -n __fish_use_subcommand -a batch -d 'run a file of OpenAI batch lines'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l output -s o -r -F -d 'Where the answers go, a line each; - is standard output, from which no batch can go on'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l concurrency -s j -x -d 'Lines under way at once (32)'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l restart -d 'Empties the output and begins anew'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l no-progress -d 'No progress bar, even on a terminal'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l model -s m -x -a '(__cloister_models)' -d 'The model'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l seed -s s -x -d 'The same job with the same seed gives the same answer on any worker'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l class -x -a 'interactive standard batch' -d 'interactive, standard or batch: who goes first when there is not enough for all'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l priority -x -d 'Within the class; 9 goes first (5)'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l deadline -x -d 'The job expires when it is not done after this long, such as 30s or 2h'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l project -x -d 'Recorded with the job, for the bill'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l cost-center -x -d 'Recorded with the job, for the bill'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l max-tokens -s n -x -d 'The answer ends after N tokens (256)'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l temperature -s t -x -d '0 (the default) takes the likeliest token each time; 1 draws from the model'\''s own distribution'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l top-p -x -d 'Draws from the likeliest tokens that together reach P (1: off)'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l top-k -x -d 'Draws from the K likeliest tokens (0: off)'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l min-p -x -d 'Draws from tokens at least P times as likely as the likeliest (0: off)'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l typical-p -x -d 'Draws from the tokens whose surprise is nearest to the mean, as many as together reach P (1: off)'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l logit-bias -x -d 'Adds BIAS, -100 to 100, to the logit of the token ID'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l repetition-penalty -x -d 'Divides the logits of tokens that were there before (1: off)'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l presence-penalty -x -d 'Taken from the logits of tokens that were there before: -2 to 2 (0: off)'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l frequency-penalty -x -d 'The same, once for each time the token was there: -2 to 2 (0: off)'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l stop-token -x -d 'The answer ends with this token, which adds no text'
complete -c cloister -n '__fish_seen_subcommand_from batch' -l logprobs -x -d 'Answers in JSON have the logprob of each token, and of the N likeliest in its place (0 to 20)'
complete -c cloister -n '__fish_seen_subcommand_from batch' -F

complete -c cloister -n __fish_use_subcommand -a watch -d 'print the answer of a job that is there already'
complete -c cloister -n '__fish_seen_subcommand_from watch' -l from -x -d 'Begins at this token of the answer, counted from 0: where `ids` of --json ended (0)'
complete -c cloister -n '__fish_seen_subcommand_from watch' -a '(__cloister_jobs)'

complete -c cloister -n __fish_use_subcommand -a jobs -d 'list jobs, newest first'
complete -c cloister -n '__fish_seen_subcommand_from jobs' -l state -x -d 'Only jobs in these states: queued, leased, running, done, failed, cancelled, rejected, expired; or "active" for the first three'
complete -c cloister -n '__fish_seen_subcommand_from jobs' -l model -s m -x -a '(__cloister_models)' -d 'Only jobs for this model'
complete -c cloister -n '__fish_seen_subcommand_from jobs' -l tenant -x -d 'Only this tenant'\''s jobs, among those that may be seen'
complete -c cloister -n '__fish_seen_subcommand_from jobs' -l prefix -x -d 'Only jobs whose short id (the column JOB) begins with these digits'
complete -c cloister -n '__fish_seen_subcommand_from jobs' -l limit -s n -x -d 'At most N jobs (20)'

complete -c cloister -n __fish_use_subcommand -a job -d 'show one job'
complete -c cloister -n '__fish_seen_subcommand_from job' -l prompt -s p -d 'Shows the prompt too'
complete -c cloister -n '__fish_seen_subcommand_from job' -a '(__cloister_jobs)'

complete -c cloister -n __fish_use_subcommand -a cancel -d 'end jobs'
complete -c cloister -n '__fish_seen_subcommand_from cancel' -l reason -x -d 'Recorded with the job'
complete -c cloister -n '__fish_seen_subcommand_from cancel' -a '(__cloister_jobs)'

complete -c cloister -n __fish_use_subcommand -a explain -d 'say why a job is where it is'
complete -c cloister -n '__fish_seen_subcommand_from explain' -a '(__cloister_jobs)'

complete -c cloister -n __fish_use_subcommand -a workers -d 'list workers, their memory and models'

complete -c cloister -n __fish_use_subcommand -a models -d 'list models and where they are loaded'
complete -c cloister -n '__fish_seen_subcommand_from models; and not __fish_seen_subcommand_from export verify plan' -a plan -d 'show how a model would be cut for several workers'
complete -c cloister -n '__fish_seen_subcommand_from models; and __fish_seen_subcommand_from plan' -l shards -x -d 'So many shards, each with a part of every layer (as many as --split says, or 1)'
complete -c cloister -n '__fish_seen_subcommand_from models; and __fish_seen_subcommand_from plan' -l stages -x -d 'Cut by layers into so many stages first, and each of these into the shards'
complete -c cloister -n '__fish_seen_subcommand_from models; and __fish_seen_subcommand_from plan' -l split -x -d 'In what proportion, one number or size each, stage by stage: 3,1 or 80GiB,24GiB (even)'
complete -c cloister -n '__fish_seen_subcommand_from models; and __fish_seen_subcommand_from plan' -a '(__cloister_models)'

complete -c cloister -n __fish_use_subcommand -a usage -d 'show tokens by tenant, model and day'
complete -c cloister -n '__fish_seen_subcommand_from usage' -l from -x -d 'From this day on (UTC), such as 2026-01-31'
complete -c cloister -n '__fish_seen_subcommand_from usage' -l to -x -d 'Up to and with this day (UTC)'
complete -c cloister -n '__fish_seen_subcommand_from usage' -l model -s m -x -a '(__cloister_models)' -d 'Only this model'
complete -c cloister -n '__fish_seen_subcommand_from usage' -l tenant -x -d 'Only this tenant, among those that may be seen'

complete -c cloister -n __fish_use_subcommand -a ledger -d 'export or verify the ledger'
complete -c cloister -n '__fish_seen_subcommand_from ledger; and not __fish_seen_subcommand_from export verify plan' -a export -d 'write the ledger to a file'
complete -c cloister -n '__fish_seen_subcommand_from ledger; and __fish_seen_subcommand_from export' -l output -s o -r -F -d 'Where to; - (the default) is standard output'
complete -c cloister -n '__fish_seen_subcommand_from ledger; and __fish_seen_subcommand_from export' -l from -x -d 'From this record on'
complete -c cloister -n '__fish_seen_subcommand_from ledger; and not __fish_seen_subcommand_from export verify plan' -a verify -d 'check an exported ledger, offline'
complete -c cloister -n '__fish_seen_subcommand_from ledger; and __fish_seen_subcommand_from verify' -l key -s k -r -F -d 'The coordinator'\''s public key that you trust: 64 hex digits, or a file that holds them'
complete -c cloister -n '__fish_seen_subcommand_from ledger; and __fish_seen_subcommand_from verify' -l origin -x -d 'The ledger that it must be'
complete -c cloister -n '__fish_seen_subcommand_from ledger; and __fish_seen_subcommand_from verify' -l against -s a -r -F -d 'A checkpoint that you kept: a signed note, or an older export of this ledger'
complete -c cloister -n '__fish_seen_subcommand_from ledger; and __fish_seen_subcommand_from verify' -F

complete -c cloister -n __fish_use_subcommand -a status -d 'say whether the coordinator is well'

complete -c cloister -n __fish_use_subcommand -a completion -d 'print the completion script for a shell'
complete -c cloister -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'

complete -c cloister -n __fish_use_subcommand -a help -d 'explain a command'
