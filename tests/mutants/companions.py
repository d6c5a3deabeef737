"""Mutants of soups and teachers, of what a run learns before its first update, and of advice."""

from tests.mutants.planting import Mutant

SOUPED = "tl_jax/runs/souped.py"
SOUP = "tl_jax/runs/soup.py"
TEACHER = "tl_jax/runs/teacher.py"
FIRST = "tl_jax/runs/trained_first.py"
ATTENTION = "tl_jax/runs/attention.py"
RELATIONSHIP = "tl_jax/runs/relationship.py"
EVIDENCE = "tl_jax/advice/evidence.py"
SENTENCES = "tl_jax/advice/sentences.py"

TEST_SOUPS = ("tests/training/test_soups.py",)
TEST_SOUPED = ("tests/runs/test_souped.py",)
TEST_TEACHER = ("tests/runs/test_teacher_source.py",)
TEST_ATTENTION = ("tests/runs/test_attention.py",)
TEST_RELATIONSHIP = ("tests/runs/test_relationship.py",)
TEST_HEAD = ("tests/runs/test_source_head.py",)
TEST_TERMS = ("tests/objectives/test_source_head.py",)
TEST_EVIDENCE = ("tests/advice/test_evidence.py",)
TEST_SENTENCES = ("tests/advice/test_sentences.py",)
TEST_JUDGING = ("tests/advice/test_judging.py",)

MUTANTS = [
    Mutant(
        "soup-greedy-from-the-worst",
        "tl_jax/training/soups.py",
        "key=lambda place: -sign * values[place]",
        "key=lambda place: sign * values[place]",
        TEST_SOUPS,
    ),
    Mutant(
        "soup-greedy-beside-the-best-member-alone",
        "tl_jax/training/soups.py",
        "chosen, best = (*chosen, place), value",
        "chosen = (*chosen, place)",
        TEST_SOUPS,
    ),
    Mutant(
        "soup-greedy-adds-what-is-worse",
        "tl_jax/training/soups.py",
        "if sign * value >= sign * best:",
        "if True:",
        TEST_SOUPS,
    ),
    Mutant(
        "soup-mean-in-float32",
        "tl_jax/training/soups.py",
        "sum(np.asarray(leaf, np.float64) for leaf in leaves)",
        "sum(np.asarray(leaf, np.float32) for leaf in leaves)",
        TEST_SOUPS,
    ),
    Mutant(
        "soup-of-a-loss-as-of-an-accuracy",
        SOUPED,
        '1 if SELECTION[metric] == "max" else -1',
        "1",
        TEST_SOUPED,
    ),
    Mutant(
        "soup-by-accuracy-whatever-selects",
        SOUPED,
        "setup.selected_by\n    if",
        '"top1_accuracy"\n    if',
        TEST_SOUPED,
    ),
    Mutant(
        "soup-statistics-of-the-mean-of-statistics",
        SOUPED,
        "    if not alike:\n",
        "    if False:\n",
        TEST_SOUPED,
    ),
    Mutant(
        "soup-statistics-always-anew",
        SOUPED,
        "    if not alike:\n",
        "    if True:\n",
        TEST_SOUPED,
    ),
    Mutant(
        "soup-of-the-first-members-alone",
        SOUPED,
        "range(1, len(members) + 1)",
        "range(1, len(members))",
        TEST_SOUPED,
    ),
    Mutant(
        "soup-uniform-of-the-chosen",
        SOUPED,
        '        if name == "greedy":\n            chosen = greedy(',
        "        if True:\n            chosen = greedy(",
        TEST_SOUPED,
    ),
    Mutant(
        "soup-members-with-other-data",
        SOUP,
        "if not assignment.startswith(_OF_MEMBERS)",
        "if False",
        TEST_SOUPED,
    ),
    Mutant(
        "soup-members-make-soups",
        SOUP,
        "    plain.soup = default_config().soup\n    plain.report",
        "    plain.report",
        TEST_SOUPED,
    ),
    Mutant(
        "soup-frozen-as-its-members",
        SOUP,
        "plain.freeze, plain.objective = defaults.freeze, defaults.objective",
        "plain.objective = defaults.objective",
        TEST_SOUPED,
    ),
    Mutant(
        "soup-greedy-without-validation",
        SOUP,
        'if section.name == "greedy" and not held_out:',
        "if False:",
        TEST_SOUPED,
    ),
    Mutant(
        "soup-members-read-test",
        FIRST,
        "self._train(what, member, folder, self.parts, sealed=True)",
        "self._train(what, member, folder, self.parts, sealed=False)",
        TEST_SOUPED,
    ),
    Mutant(
        "soup-members-are-not-looked-at",
        "tl_jax/runs/setup.py",
        "            check_config(member, parts)\n",
        "            pass\n",
        TEST_SOUPED,
    ),
    Mutant(
        "shared-runs-cost-the-first-alone",
        FIRST,
        "sum(seconds for run, seconds in taken.items() if run != mine)",
        "0.0",
        TEST_SOUPED,
    ),
    Mutant(
        "shared-runs-cost-twice",
        FIRST,
        "taken.items() if run != mine",
        "taken.items()",
        TEST_SOUPED,
    ),
    Mutant(
        "shared-runs-are-not-waited-for",
        FIRST,
        "    while not lock.is_locked:\n",
        "    while False:\n",
        TEST_SOUPED,
    ),
    Mutant(
        "costs-leave-out-shared-runs",
        "tl_jax/ablation/costs.py",
        'seconds += found.get("shared_seconds", 0.0)',
        "seconds += 0.0",
        ("tests/ablation/test_costs.py",),
    ),
    Mutant(
        "pairs-as-the-baseline",
        "tl_jax/ablation/analysis.py",
        "return spec.compared_with(variant)",
        "return spec.reference",
        ("tests/ablation/test_analysis.py",),
    ),
    Mutant(
        "pairs-compare-what-is-compared-with",
        "tl_jax/ablation/spec.py",
        "variant if variant in self.pairs.values() else self.reference",
        "self.reference",
        ("tests/ablation/test_spec.py",),
    ),
    Mutant(
        "pairs-are-no-part-of-the-spec",
        "tl_jax/ablation/record.py",
        "*opened, *pairs, *names",
        "*opened, *names",
        ("tests/ablation/test_engine.py::test_other_pairs_make_another_spec",),
    ),
    Mutant(
        "variants-of-configs-keep-their-seed",
        "tl_jax/ablation/spec.py",
        "leave_out=given_to_all",
        "leave_out=()",
        ("tests/ablation/test_spec.py",),
    ),
    Mutant(
        "teacher-reads-test",
        FIRST,
        "self._train(what, described, folder, self._parts_of(described), sealed=True)",
        "self._train(what, described, folder, self._parts_of(described), sealed=False)",
        TEST_TEACHER,
    ),
    Mutant(
        "teacher-with-the-phases-of-the-student",
        TEACHER,
        "defaults.objective, defaults.soup, ()",
        "defaults.objective, defaults.soup, described.phases",
        TEST_TEACHER,
    ),
    Mutant(
        "teacher-without-its-assignments",
        TEACHER,
        "described = assigned(described, assignments)",
        "assigned(described, assignments)",
        TEST_TEACHER,
    ),
    Mutant(
        "teacher-of-all-students-in-one-folder",
        FIRST,
        "source.shared_folder(config, self.sources) if self.sources else self.workdir / own",
        "self.sources / own if self.sources else self.workdir / own",
        TEST_TEACHER,
    ),
    Mutant(
        "teacher-trained-again-for-a-finished-student",
        FIRST,
        "        if self._is_finished():\n            return taught\n",
        "",
        TEST_TEACHER,
    ),
    Mutant(
        "sealed-runs-export-nothing",
        "tl_jax/runs/conclusion.py",
        '("validation",))\n    if jax.process_index() == 0:\n',
        '("validation",))\n    if False:\n',
        TEST_SOUPED,
    ),
    Mutant(
        "attention-learned-and-not-used",
        ATTENTION,
        "setup.minimised, objective=objective, attention=",
        "setup.minimised, attention=",
        TEST_ATTENTION,
    ),
    Mutant(
        "attention-in-all-phases",
        ATTENTION,
        "    if not setup.config.objective.delta_attention:\n        return setup\n",
        "",
        TEST_ATTENTION,
    ),
    Mutant(
        "attention-program-compiled-too-early",
        "tl_jax/runs/training.py",
        "if setup.boundary is None and not setup.config.objective.delta_attention:",
        "if setup.boundary is None:",
        TEST_ATTENTION,
    ),
    Mutant(
        "attention-not-standardised",
        "tl_jax/training/filter_attention.py",
        "(values - values.mean()) / spread if",
        "(values - values.mean()) if",
        ("tests/training/test_filter_attention.py",),
    ),
    Mutant(
        "attention-of-kept-channels",
        "tl_jax/training/filter_attention.py",
        "jnp.where(channels == removed, 0.0, maps)",
        "jnp.where(channels == removed, maps, 0.0)",
        ("tests/training/test_filter_attention.py",),
    ),
    Mutant(
        "co-tuning-towards-the-label-of-another-class",
        "tl_jax/objectives/source_head.py",
        "wanted = relationship[outputs.labels]",
        "wanted = relationship[outputs.labels - 1]",
        TEST_TERMS,
    ),
    Mutant(
        "lwf-without-temperature-of-the-source",
        "tl_jax/objectives/source_head.py",
        "losses.softened(outputs.source.logits, self.temperature)",
        "losses.softened(outputs.source.logits, 1.0)",
        TEST_TERMS,
    ),
    Mutant(
        "relationship-without-the-marginal",
        "tl_jax/objectives/relationship.py",
        "log_softmax(scores) + np.log(marginal)[:, None]",
        "log_softmax(scores)",
        ("tests/objectives/test_relationship.py",),
    ),
    Mutant(
        "relationship-not-calibrated",
        RELATIONSHIP,
        "related.reverse(scale * scores, probabilities.mean(0))",
        "related.reverse(scores, probabilities.mean(0))",
        TEST_RELATIONSHIP,
    ),
    Mutant(
        "relationship-of-the-trained-network",
        RELATIONSHIP,
        "related.calibrated(logits, temperature)\n    empty",
        "related.calibrated(logits, 1.0)\n    empty",
        TEST_RELATIONSHIP,
    ),
    Mutant(
        "source-head-at-random",
        "tl_jax/objectives/source_head.py",
        "    return start.source_head\n",
        "    return jax.tree.map(lambda leaf: 0 * leaf, start.source_head)\n",
        TEST_HEAD,
    ),
    Mutant(
        "source-head-in-what-is-exported",
        "tl_jax/runs/conclusion.py",
        "results.save_weights(folder, setup, state.network)\n    if setup",
        'results.save_weights(folder, setup, {**state.network, "params": state.params})\n    if setup',
        TEST_HEAD,
    ),
    Mutant(
        "advice-judged-by-what-was-seen",
        "tl_jax/advice/judging.py",
        "correct[:, test] = logits.argmax(-1) == labels[test]",
        "correct[:, train] = (np.einsum('nf,sfk->snk', seen, found.kernel)).argmax(-1) == labels[train]",
        TEST_JUDGING,
    ),
    Mutant(
        "advice-standardised-by-the-test-fold",
        "tl_jax/advice/judging.py",
        "mean, spread = features[train].mean(0), features[train].std(0)",
        "mean, spread = features[test].mean(0), features[test].std(0)",
        TEST_JUDGING,
    ),
    Mutant(
        "advice-control-of-the-weights",
        EVIDENCE,
        "random = _random(setup, config.seed)",
        "random = pretrained",
        TEST_EVIDENCE,
    ),
    Mutant(
        "advice-control-without-statistics",
        EVIDENCE,
        'if jax.tree.leaves(variables["batch_stats"]):',
        "if False:",
        TEST_EVIDENCE,
    ),
    Mutant(
        "advice-looks-at-validation",
        EVIDENCE,
        'images = setup.splits["train"].gather(np.resize(chosen, size))',
        'images = setup.splits.get("validation", setup.splits["train"]).gather(np.resize(chosen, size) % 10)',
        TEST_EVIDENCE,
    ),
    Mutant(
        "advice-shift-of-means-alone",
        EVIDENCE,
        "(np.square(difference) + np.square(spreads[1] - spreads[0]))",
        "np.square(difference)",
        TEST_EVIDENCE,
    ),
    Mutant(
        "advice-first-boundary-of-equals",
        SENTENCES,
        "return max(reversed(judged), key",
        "return max(judged, key",
        TEST_SENTENCES,
    ),
    Mutant(
        "advice-control-is-the-last-boundary",
        SENTENCES,
        "ours, control = best(evidence.pretrained), best(evidence.random)",
        "ours, control = best(evidence.pretrained), evidence.random[-1]",
        TEST_SENTENCES,
    ),
    Mutant(
        "advice-freezes-without-an-interval",
        SENTENCES,
        "        if interval[0] > 0:\n",
        "        if difference > 0:\n",
        TEST_SENTENCES,
    ),
    Mutant(
        "advice-strategies-that-one-data-set-has",
        SENTENCES,
        "        if len(values) == len(specs)\n",
        "",
        TEST_SENTENCES,
    ),
    Mutant(
        "advice-cost-of-one-pass",
        SENTENCES,
        "whole = _PASSES_OF_UPDATE * images",
        "whole = images",
        TEST_SENTENCES,
    ),
    Mutant(
        "advice-nearest-by-difference",
        "tl_jax/advice/findings.py",
        "(max(shots / labels, labels / shots), shots)",
        "(abs(shots - labels), shots)",
        TEST_SENTENCES,
    ),
]
