// Who searches for a word wants it taught: chapters first, then pages of prose, then the reference of the module.
var Scorer = {
  score: ([page, , , , score]) => score + (page.startsWith("notebooks/") ? 200 : page.startsWith("book/api") ? 0 : 100),
  // The rest is Sphinx's own.
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: {0: 15, 1: 5, 2: -5},
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
