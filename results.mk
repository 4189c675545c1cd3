# The tables and figures of the paper in miniature, on real recordings, and the claims they support.
# `make results` makes what is missing or was made by other networks; give the folder of recordings
# as DATA_ROOT or SONIBOOK_DATA. What is interrupted goes on where it stood. One file at a time.

## How much: quick (half an hour: one seed, probes, few clips), frozen (all that needs no training),
## full (fine-tuning and pretraining as well: days on a laptop).
RESULTS ?= frozen
## Anything but empty trains the networks from nothing first, into runs/, and publishes them.
RETRAIN ?=
## Of what is trained for the tables: bfloat16 is quicker where a processor can.
PRECISION ?= float32
## How many networks of each regime, the first so many; empty for all.
SEEDS ?=
## Processes of the figures' analyses.
PROCESSES ?= 1

RESULT_NAMES := esc50-folds table-a4 table-a6 table-a2 table-a1 recipe figure-7 figures-2-3 figure-5 \
    figure-5-supervised figure-6 figure-6-full figure-1 figure-b3 stimulation strided \
    sanity separation unpooling explanations dose-response roar \
    listeners-esc10 listeners-fsdd listeners-scenes faithfulness faithfulness-least-squares \
    figure-4-in-domain figure-4-out-of-domain figure-4-in-domain-ridge figure-4-out-of-domain-ridge \
    figure-4-speakers starts scales yardstick spectrogram elsewhere synthesiser
RESULT_OPTIONS = --profile '$(RESULTS)' --processes '$(PROCESSES)' \
    --precision '$(PRECISION)' $(if $(SEEDS),--seeds '$(SEEDS)') \
    $(if $(DATA_ROOT),--data-root '$(DATA_ROOT)')

.PHONY: results $(RESULT_NAMES:%=results/%) results/claims results/freeze

results: $(INSTALLED) ## Make the paper's tables and figures anew, on recordings (RESULTS=quick)
	$(PYTHON) -m tools.results $(RESULT_NAMES) claims $(RESULT_OPTIONS) \
	    $(if $(RETRAIN),--retrain)

# One table or figure each, such as `make results/table-a4`. The files themselves are no targets:
# chapters are made from them, and `make book` must not measure anything.
$(RESULT_NAMES:%=results/%) results/claims results/freeze: results/%: $(INSTALLED)
	$(PYTHON) -m tools.results $* $(RESULT_OPTIONS)
